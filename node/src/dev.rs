//! `purser dev`: a whole ledger in one process, for trying it out and for tests of programs that use
//! it. Says what it does, makes a demo customer at the first start, and prints what to type next.

use std::path::PathBuf;

use purser_proto::v1;
use tokio::sync::watch;

use crate::api::Api;
use crate::config::{Config, ConfigFlags, LogFormat};
use crate::node::{Listeners, Node};

/// Runs a ledger here: one process, data in a directory, a demo customer.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DevArgs {
    /// A TOML file with any of the settings below
    #[arg(long, value_name = "FILE", env = "PURSER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
}

const EXAMPLES: &str = "\
Examples:
  purser dev                                data in ./data, API on 127.0.0.1:7480
  purser dev --data /tmp/try --shards 4     elsewhere, with 4 shards
  purser dev --test-clock                   a clock that `purser clock advance` moves

Settings come from defaults, the --config file, PURSER_... variables and flags; later ones win.
Ctrl-C or SIGTERM stops it; everything answered is on disk.";

impl DevArgs {
    /// Runs until it is told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = Config::load(self.config.as_deref(), &self.flags)?;
        init_log(&config)?;
        // Before anybody is told that it is ready: a signal must not end it any other way.
        let signalled = signals()?;
        let listeners = Listeners::bind(&config).await?;
        let node = Node::open(&config).await?;
        let (api, admin) = (listeners.api_address, listeners.admin_address);
        println!(
            "Purser is ready: API on {api}, health and metrics on http://{admin}, data in {}",
            config.data.display()
        );
        println!("  cluster {}, {} shards", node.descriptor.cluster_id, node.descriptor.shards);
        if node.fresh {
            make_demo(&node.api).await?;
            println!("  a demo customer was made: acme, wallet main, with three tranches of credits");
        }
        println!("{}", next_lines(api, config.test_clock));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            signalled.await;
            // Nobody listens any more where the server has ended by itself.
            let _ = stop.send(true);
        });
        node.serve(listeners, stopped).await
    }
}

fn init_log(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)
        .map_err(|error| anyhow::anyhow!("log: {:?} is not a filter such as info: {error}", config.log))?;
    let people = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(people);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Listens for SIGTERM and Ctrl-C from now on; what it returns ends with the first of them.
fn signals() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A customer with a wallet and three tranches, so that the first debit has something to split over.
async fn make_demo(api: &Api) -> anyhow::Result<()> {
    api.create_wallet(&v1::CreateWalletRequest {
        customer: "acme".to_owned(),
        wallet: "main".to_owned(),
        idempotency_key: "demo-wallet".to_owned(),
        asset: Some(v1::Asset { code: "credits".to_owned(), scale: 0 }),
        ..Default::default()
    })
    .await?;
    let tranche = |amount: &str, kind: v1::TrancheKind, priority, days: &str, label: &str| v1::TrancheSpec {
        amount: amount.to_owned(),
        kind: kind.into(),
        priority: Some(priority),
        expiry: (!days.is_empty()).then(|| {
            let duration = days.to_owned();
            v1::tranche_spec::Expiry::ExpiresIn(v1::CalendarDuration { duration, ..Default::default() })
        }),
        label: label.to_owned(),
        ..Default::default()
    };
    api.grant(&v1::GrantRequest {
        customer: "acme".to_owned(),
        wallet: "main".to_owned(),
        idempotency_key: "demo-grant".to_owned(),
        tranches: vec![
            tranche("100", v1::TrancheKind::Promotional, 50, "P7D", "welcome credits"),
            tranche("500", v1::TrancheKind::Plan, 100, "P1M", "monthly plan"),
            tranche("1000", v1::TrancheKind::Purchased, 100, "", "bought"),
        ],
        ..Default::default()
    })
    .await?;
    Ok(())
}

fn next_lines(api: std::net::SocketAddr, test_clock: bool) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "purser".to_owned());
    let server = match api.port() {
        7480 => String::new(),
        _ => format!(" --server http://{api}"),
    };
    let mut lines = vec![
        "\nTry, in another terminal:".to_owned(),
        format!(
            "  {program}{server} grant --customer acme --wallet main --amount 250 --kind promotional --priority 10"
        ),
        format!(
            "  {program}{server} debit --customer acme --wallet main --amount 900   # splits over three tranches"
        ),
        format!("  {program}{server} balance --customer acme --wallet main"),
        format!("  {program}{server} movements --customer acme --wallet main"),
    ];
    if test_clock {
        lines.push(format!("  {program}{server} clock advance P8D   # the welcome credits expire"));
    }
    lines.push("Ctrl-C stops it.".to_owned());
    lines.join("\n")
}
