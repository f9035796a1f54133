//! A run for people: one line an event, a column for each node, one for the callers, one for the world.

use std::fmt::Write;
use std::time::Duration;

use console::{Style, measure_text_width, pad_str, truncate_str};

/// Where something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a node, by its place among all.
    Node(usize),
    /// At a caller, by its number.
    Caller(u64),
    /// Everywhere, or nowhere.
    World,
}

/// How something looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should.
    Plain,
    /// Something went well that had not before.
    Good,
    /// Something strikes.
    Blow,
    /// Something ended, or had no answer.
    Bad,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, since the run began.
    pub at: Duration,
    /// Where.
    pub place: Place,
    /// How it looks.
    pub tone: Tone,
    /// What.
    pub what: String,
}

/// How wide a node's column is, and the callers'.
const NODE_WIDTH: usize = 22;
const CALLERS_WIDTH: usize = 58;
/// How wide the time is.
const TIME_WIDTH: usize = 10;

/// Lays out events under a head; colours where the terminal takes them.
pub fn table(events: &[Event], nodes: usize) -> String {
    let mut text = String::new();
    let mut head = format!("{:>TIME_WIDTH$}  ", "SECONDS");
    for node in 1..=nodes {
        let _ = write!(head, "{:NODE_WIDTH$}", format!("n{node}"));
    }
    let _ = write!(head, "{:CALLERS_WIDTH$}WORLD", "CALLERS");
    let _ = writeln!(text, "{}", Style::new().bold().apply_to(head));
    for event in events {
        let column = match event.place {
            Place::Node(node) => node * NODE_WIDTH,
            Place::Caller(_) => nodes * NODE_WIDTH,
            Place::World => nodes * NODE_WIDTH + CALLERS_WIDTH,
        };
        let seconds = format!("{}.{:03}", event.at.as_secs(), event.at.subsec_millis());
        let what = style(event.tone).apply_to(cell(event));
        let _ = writeln!(text, "{seconds:>TIME_WIDTH$}  {:column$}{what}", "");
    }
    text
}

/// What stands in the column: cut where the next one begins, but for the last one.
fn cell(event: &Event) -> String {
    let what = match event.place {
        Place::Caller(number) => format!("c{number} {}", event.what),
        _ => event.what.clone(),
    };
    let width = match event.place {
        Place::World => return what,
        Place::Node(_) => NODE_WIDTH - 1,
        Place::Caller(_) => CALLERS_WIDTH - 1,
    };
    // A node that has much to tell says it over the columns after it: the line is its own.
    if matches!(event.place, Place::Node(_)) && measure_text_width(&what) > width {
        return what;
    }
    pad_str(&truncate_str(&what, width, "…"), width, console::Alignment::Left, None).trim_end().to_owned()
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().green(),
        Tone::Blow => Style::new().yellow().bold(),
        Tone::Bad => Style::new().red(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_stands_under_its_node_its_callers_or_the_world() {
        console::set_colors_enabled(false);
        let event = |at_ms, place, what: &str| Event {
            at: Duration::from_millis(at_ms),
            place,
            tone: Tone::Plain,
            what: what.to_owned(),
        };
        let events = [
            event(0, Place::Node(0), "starts"),
            event(12, Place::Node(1), "leads shard 3 in term 2"),
            event(1_234, Place::Caller(7), "Debit: applied"),
            event(60_000, Place::World, "the storm is over"),
        ];
        let expected = [
            "   SECONDS  n1                    n2                    CALLERS                                                   WORLD",
            "     0.000  starts",
            "     0.012                        leads shard 3 in term 2",
            "     1.234                                              c7 Debit: applied",
            "    60.000                                                                                                        the storm is over",
            "",
        ];
        assert_eq!(table(&events, 2), expected.join("\n"));
    }
}
