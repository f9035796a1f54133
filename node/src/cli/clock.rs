//! `purser clock`: the server's clock, and how to move a test clock so that expiries can be tried.

use clap::{ArgGroup, Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use purser_proto::v1::advance_clock_request::To;
use purser_proto::v1::{AdvanceClockRequest, AdvanceClockResponse, GetClockRequest, GetClockResponse};

use super::answer::Answer;
use super::failure::Failure;
use super::session::{About, Session};
use super::{json, parse, times};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser clock get
  purser clock advance 31d
  purser clock advance --to 2026-12-01T00:00:00Z";

/// What may be done with the clock.
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// Show it
    #[command(after_help = "\
Examples:
  purser clock get
  purser clock get -o json | jq -r .now")]
    Get,
    /// Move a test clock (purser dev --test-clock) forward; it never goes back
    #[command(after_help = "\
Examples:
  purser clock advance 31d
  purser clock advance P1M
  purser clock advance --to 2026-12-01T00:00:00Z")]
    Advance(AdvanceArgs),
}

/// How far, or to when.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("goal").required(true).args(["by", "to"])))]
pub struct AdvanceArgs {
    /// How far from what it shows now, on the UTC calendar: 90m, 31d, P1M
    #[arg(value_name = "DURATION", value_parser = parse::calendar_span)]
    by: Option<Span>,
    /// The time to show
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    to: Option<prost_types::Timestamp>,
}

impl ClockCommand {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match self {
            ClockCommand::Get => Ok(show(&get(session).await?)),
            ClockCommand::Advance(args) => args.run(session).await,
        }
    }
}

impl AdvanceArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let goal = match (self.to, self.by) {
            (Some(time), _) => time,
            (None, Some(span)) => later(&get(session).await?, span)?,
            (None, None) => return Err(Failure::Usage("name a duration, or --to".to_owned())),
        };
        // Always to a time, never by a distance: a call that is repeated goes no further.
        let about = About::read(format!("set the clock to {}", times::rfc3339(&goal)));
        let request = session.request(AdvanceClockRequest { to: Some(To::Set(goal)) });
        let mut admin = session.admin();
        let response = session.wait(about, admin.advance_clock(request)).await?;
        Ok(show_advanced(&response))
    }
}

async fn get(session: &Session) -> Result<GetClockResponse, Failure> {
    let request = session.request(GetClockRequest {});
    let mut admin = session.admin();
    session.wait(About::read("show the clock"), admin.get_clock(request)).await
}

/// What the clock shows, plus a span of calendar time.
pub(super) fn later(clock: &GetClockResponse, span: Span) -> Result<prost_types::Timestamp, Failure> {
    let now = clock.now.as_ref().and_then(times::from_proto);
    let now: Timestamp =
        now.ok_or_else(|| Failure::Usage("the server did not say what time it is".to_owned()))?;
    let later = now.to_zoned(TimeZone::UTC).checked_add(span);
    let later = later.map_err(|error| Failure::Usage(format!("too far ahead: {error}")))?;
    Ok(times::to_proto(later.timestamp()))
}

pub(super) fn show(response: &GetClockResponse) -> Answer {
    let which = if response.test_clock { "test clock" } else { "real clock" };
    let text = format!("{} ({which})", times::or_none(response.now.as_ref()));
    Answer::new(text, json::shape(response))
}

fn show_advanced(response: &AdvanceClockResponse) -> Answer {
    Answer::new(times::or_none(response.now.as_ref()), json::shape(response))
}
