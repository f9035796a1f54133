//! Tables for people: plain columns, amounts to the right, no frames to trip `grep` and `awk`.
//!
//! What a server sent may hold anything that a caller once wrote into a label. Control characters
//! are shown escaped, so that no label can drive a terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::times::NONE;

/// Which side a column leans on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lean {
    /// Text.
    Left,
    /// Amounts and counts.
    Right,
}

/// A column's head: its name and lean.
pub type Column = (&'static str, Lean);

/// Lays out rows under a head; without rows a dash says so.
pub fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|(name, _)| *name));
    let mut row_count = 0_usize;
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
        row_count += 1;
    }
    for (index, (_, lean)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(match lean {
                Lean::Left => CellAlignment::Left,
                Lean::Right => CellAlignment::Right,
            });
            column.set_padding((0, 2));
        }
    }
    let lines = trimmed(&table.to_string());
    if row_count == 0 { format!("{lines}\n(none)") } else { lines }
}

/// Lays out names and values, one a line; values that are empty are left out.
pub fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let shown: Vec<_> = facts.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = shown.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<_> =
        shown.iter().map(|(name, value)| format!("{name:width$}  {}", clean(value))).collect();
    lines.join("\n")
}

/// A text without control characters.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_direction_mark(character) {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// A text, or a dash where there is none.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// Marks that make text read in another order than it is written.
fn is_direction_mark(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn trimmed(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}
