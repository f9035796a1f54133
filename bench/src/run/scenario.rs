//! Scenarios: what is measured, and with which loads.

use std::time::Duration;

use clap::ValueEnum;

use super::load::Call;
use super::measure::Load;
use super::report::Pace;
use crate::workload::Spread;

/// Debits a minute that the system is there for, at any time of the day.
pub(super) const MISSION_A_MINUTE: u64 = 20_000;
/// Debits a call on the one hot wallet.
const HOT_BATCH: usize = 1_000;
/// Holds a call, and captures a call after them.
const HOLD_BATCH: usize = 1_000;
/// Clients with one call after the other, where the scenario does not vary them.
pub const CLIENTS: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One debit a call
    Single,
    /// A hold of one and a half times the amount, then a capture of the amount that releases the rest; one
    /// a call, then 1,000 a call
    Hold,
    /// Many debits a call
    Batch,
    /// Debits over bidirectional streams, many under way on each
    Stream,
    /// One wallet for all: one debit a call, and batches of 1,000
    Hot,
    /// One client, one debit at a time
    One,
    /// Linearizable balances
    Read,
    /// 20,000 debits a minute, in an open loop
    Mission,
    /// 20,000 debits a minute while 1,000,000 tranches of another wallet expire at once; not among the
    /// default ones
    Due,
    /// More and more and wallets with many tranches; not among the default ones
    Growth,
}

/// Which closed loops are followed by open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Open {
    /// None
    None,
    /// The first one of scenario single
    First,
    /// All of single, batch and stream
    All,
}

/// What loads are made of.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadOptions {
    /// Customers, with one wallet each [default: 10,000; growth: 1,000,000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub wallets: Option<u64>,
    /// How debits spread over wallets (single; all others are uniform)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uniform,zipf")]
    pub spread: Vec<Spread>,
    /// Clients with one debit a call (single), or one hold and its capture (hold)
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "64,256")]
    pub clients: Vec<usize>,
    /// Clients with many debits a call (batch, hot, growth), or many holds (hold)
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    pub batch_clients: usize,
    /// Debits a call, up to 8,000 (batch)
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "100,1000,8000")]
    pub batch_debits: Vec<usize>,
    /// Streams (stream)
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    pub streams: usize,
    /// Debits under way on each stream (stream)
    #[arg(long, value_name = "NUMBER", default_value_t = 128)]
    pub window: usize,
    /// Credits of each of the four tranches of a grant to few wallets (hot, growth's of many tranches)
    #[arg(long, value_name = "CREDITS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub hot_tranche_credits: u64,
    /// Seconds of load before each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub warm_up_s: u64,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub measure_s: u64,
    /// Which closed loops are followed by open ones
    #[arg(long, value_enum, default_value = "first")]
    pub open: Open,
    /// Rates of the open loops, in percent of what the closed loop reached
    #[arg(long, value_name = "PERCENTS", value_delimiter = ',', default_value = "25,50,75")]
    pub percent: Vec<u64>,
    /// Debits a second in the open loops, instead of percents
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Where the choice of wallets and amounts begins
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

impl LoadOptions {
    /// Whether loads can be made of them.
    pub fn check(&self) -> anyhow::Result<()> {
        let debits_max = purser_node::api::batch::WRITES_MAX;
        anyhow::ensure!(
            self.batch_debits.iter().all(|debits| (2..=debits_max).contains(debits)),
            "--batch-debits: 2 to {debits_max} debits a call"
        );
        let mut numbers = self.clients.iter().chain([&self.batch_clients, &self.streams, &self.window]);
        anyhow::ensure!(
            numbers.all(|number| *number > 0),
            "at least one client, one stream and one debit under way are needed"
        );
        anyhow::ensure!(self.percent.iter().all(|percent| *percent > 0), "--percent: at least 1");
        Ok(())
    }

    /// A load of so many clients on all wallets alike.
    pub fn closed(&self, scenario: &'static str, call: Call, clients: usize) -> Load {
        Load {
            scenario,
            call,
            spread: Spread::Uniform,
            pace: Pace::Closed { clients },
            warm_up: Duration::from_secs(self.warm_up_s),
            measured: Duration::from_secs(self.measure_s),
            seed: self.seed,
        }
    }

    /// The loads of a scenario, in the order in which they are measured. Due and growth make
    /// their own.
    pub fn loads(&self, scenario: Scenario) -> Vec<Load> {
        match scenario {
            Scenario::Single => {
                let spread = |&spread: &Spread| {
                    let load = move |&clients: &usize| self.closed("single", Call::Debit, clients);
                    self.clients.iter().map(move |clients| Load { spread, ..load(clients) })
                };
                self.spread.iter().flat_map(spread).collect()
            }
            Scenario::Hold => {
                let load = |&clients: &usize| self.closed("hold", Call::HoldAndCapture, clients);
                let batches = self.closed("hold", Call::HoldBatch(HOLD_BATCH), self.batch_clients);
                self.clients.iter().map(load).chain([batches]).collect()
            }
            Scenario::Batch => {
                let load = |&debits| self.closed("batch", Call::Batch(debits), self.batch_clients);
                self.batch_debits.iter().map(load).collect()
            }
            Scenario::Stream => {
                let call = Call::Streamed { streams: self.streams };
                vec![self.closed("stream", call, self.streams * self.window)]
            }
            Scenario::Hot => vec![
                self.closed("hot", Call::Debit, CLIENTS),
                self.closed("hot", Call::Batch(HOT_BATCH), self.batch_clients),
            ],
            Scenario::One => vec![self.closed("one", Call::Debit, 1)],
            Scenario::Read => vec![self.closed("read", Call::Balance, CLIENTS)],
            Scenario::Mission => {
                let pace = Pace::Open { a_minute: MISSION_A_MINUTE };
                vec![Load { pace, ..self.closed("mission", Call::Debit, 1) }]
            }
            Scenario::Due | Scenario::Growth => Vec::new(),
        }
    }

    /// The open loops that follow a closed one that reached so many debits a minute.
    pub fn open_loops(&self, closed: &Load, reached_a_minute: u64) -> Vec<Load> {
        let rates = match self.rate {
            Some(a_second) => vec![a_second * 60],
            None => self.percent.iter().map(|percent| reached_a_minute * percent / 100).collect(),
        };
        let open = |a_minute: u64| {
            // At least one call in the span.
            let a_minute = a_minute.max(closed.call.debits() as u64 * 60 / self.measure_s + 1);
            Load { pace: Pace::Open { a_minute }, ..closed.clone() }
        };
        rates.into_iter().map(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: LoadOptions,
    }

    fn options(line: &[&str]) -> LoadOptions {
        Line::parse_from(["bench"].iter().chain(line)).options
    }

    #[test]
    fn open_loops_run_at_a_quarter_half_and_three_quarters_of_what_was_reached_or_at_a_given_rate() {
        let rates = |line: &[&str]| {
            let options = options(line);
            let closed = options.closed("single", Call::Debit, 64);
            let open = options.open_loops(&closed, 240_000);
            open.into_iter().map(|load| load.pace).collect::<Vec<_>>()
        };
        let quarters = [60_000, 120_000, 180_000].map(|a_minute| Pace::Open { a_minute });
        assert_eq!(rates(&[]), quarters);
        assert_eq!(rates(&["--rate", "500"]), [Pace::Open { a_minute: 30_000 }]);
    }

    #[test]
    fn an_open_loop_of_large_batches_makes_a_call_within_the_measurement() {
        let options = options(&["--percent", "25", "--measure-s", "2"]);
        let closed = options.closed("batch", Call::Batch(8_000), 8);
        let open = options.open_loops(&closed, 4_000);
        // 8,000 in two seconds are 240,000 a minute.
        assert_eq!(open[0].pace, Pace::Open { a_minute: 240_001 });
    }

    #[test]
    fn every_number_of_clients_meets_every_spread_and_the_window_is_under_way_on_each_stream() {
        let options = options(&[]);
        let single = options.loads(Scenario::Single);
        let seen: Vec<_> = single.iter().map(|load| (load.spread, load.pace)).collect();
        let closed = |clients| Pace::Closed { clients };
        let (uniform, zipf) = (Spread::Uniform, Spread::Zipf);
        let all = [(uniform, closed(64)), (uniform, closed(256)), (zipf, closed(64)), (zipf, closed(256))];
        assert_eq!(seen, all);
        assert_eq!(options.loads(Scenario::Stream)[0].pace, closed(8 * 128));
    }

    #[test]
    fn numbers_of_nothing_are_refused() {
        for wrong in [
            ["--batch-debits", "1"],
            ["--batch-debits", "8001"],
            ["--clients", "0"],
            ["--streams", "0"],
            ["--window", "0"],
            ["--percent", "0"],
        ] {
            assert!(options(&wrong).check().is_err(), "{wrong:?}");
        }
        assert!(options(&[]).check().is_ok());
    }
}
