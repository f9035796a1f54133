//! Paging of lists: flags in, a hint for the next page out.

use clap::Args;
use purser_proto::v1::{PageInfo, PageRequest, SortOrder};

/// Rows that a page may hold.
const PAGE_ROWS_MAX: i64 = 1_000;

/// The flags of every list.
#[derive(Clone, Debug, Args)]
pub struct PageArgs {
    /// Rows at most, 1 to 1000
    #[arg(long, default_value_t = 100, value_name = "ROWS",
          value_parser = clap::value_parser!(u32).range(1..=PAGE_ROWS_MAX))]
    pub limit: u32,

    /// Go on from the cursor that an earlier page printed
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["oldest_first", "newest_first"])]
    pub cursor: Option<String>,

    /// In order of creation
    #[arg(long, conflicts_with = "newest_first")]
    pub oldest_first: bool,

    /// Against the order of creation
    #[arg(long)]
    pub newest_first: bool,
}

impl PageArgs {
    /// The slice asked for.
    pub fn request(&self) -> PageRequest {
        let order = match (self.oldest_first, self.newest_first) {
            (true, _) => SortOrder::OldestFirst,
            (_, true) => SortOrder::NewestFirst,
            _ => SortOrder::Unspecified,
        };
        PageRequest { size: self.limit, cursor: self.cursor.clone().unwrap_or_default(), order: order.into() }
    }
}

/// Lines that say how to go on; empty if this is all.
pub fn hint(page: Option<&PageInfo>) -> String {
    let Some(page) = page else { return String::new() };
    let mut lines = String::new();
    if !page.next_cursor.is_empty() {
        lines.push_str(&format!("\nnext page: --cursor {}", page.next_cursor));
    }
    if !page.previous_cursor.is_empty() {
        lines.push_str(&format!("\nprevious page: --cursor {}", page.previous_cursor));
    }
    lines
}
