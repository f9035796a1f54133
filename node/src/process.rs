//! What every server process does: write its log, and listen for the signals that end it.

use tokio::sync::watch;

use crate::config::{Config, LogFormat};

/// Starts to write the log to stderr, as configured.
pub fn init_log(config: &Config) -> anyhow::Result<()> {
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

/// Listens for SIGTERM and Ctrl-C from now on; what it returns turns true with the first of them.
pub fn stop_signal() -> std::io::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody listens any more where the server has ended by itself.
        let _ = stop.send(true);
    });
    Ok(stopped)
}
