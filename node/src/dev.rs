//! `purser dev`: a whole ledger in one process, for trying it out and for tests of programs that use
//! it. Says what it does, makes a demo customer at the first start, and prints what to type next.

use std::path::PathBuf;

use purser_proto::v1;

use crate::api::Api;
use crate::config::{Config, ConfigFlags};
use crate::process;
use crate::server::{Listeners, Server};

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
        process::init_log(&config)?;
        // Before anybody is told that it is ready: a signal must not end it any other way.
        let stop = process::stop_signal()?;
        let listeners = Listeners::bind(&config).await?;
        let (data, test_clock) = (config.data.clone(), config.test_clock);
        let mut server = Server::open(config, listeners)?;
        server.found_alone()?;
        let (api, admin, fresh) = (server.api_address(), server.admin_address(), server.fresh);
        let running = server.start().await?;
        running.node().ready().await?;
        println!(
            "Purser is ready: API on {api}, health and metrics on http://{admin}, data in {}",
            data.display()
        );
        let founding = running.node().cluster().founding();
        println!("  cluster {}, {} shards", founding.cluster_id, founding.shards);
        if fresh {
            make_demo(&running.node().api).await?;
            println!("  a demo customer was made: acme, wallet main, with three tranches of credits");
        }
        println!("{}", next_lines(api, test_clock));
        running.serve(stop).await
    }
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
