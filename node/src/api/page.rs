//! Pages of a list that is ordered by a number: cursors, both directions.
//!
//! A cursor names the order of the list, the way to go, the number to go on from, and a hash of the
//! question it belongs to. It holds no secret and grants nothing; it is opaque so that it may change.

use purser_proto::v1;
use tonic::Status;
use xxhash_rust::xxh3::xxh3_64;

use super::refusal::malformed_field;
use super::render::hex;

/// Rows of a page that does not say.
const ROWS_DEFAULT: u32 = 100;
const VERSION: u8 = 1;
/// The greatest number that a cursor may go on from: half the range is more rows than there can be.
const BOUND_MAX: u64 = u64::MAX / 2;

/// Where a page begins and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows at most.
    pub rows: usize,
    /// The order in which the list is shown.
    pub newest_first: bool,
    /// Towards the rows before, against the order shown.
    pub towards_previous: bool,
    /// The number to go on from, itself not included; `None` at the beginning of the order.
    pub bound: Option<u64>,
    question: u64,
}

/// A page's rows in the order shown, and the cursors around them.
#[derive(Debug)]
pub struct Paged<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where to go on.
    pub info: v1::PageInfo,
}

impl Page {
    /// Reads a request for a page of the list that `question` describes.
    pub fn read(
        request: Option<&v1::PageRequest>,
        newest_first: bool,
        question: &str,
    ) -> Result<Page, Status> {
        let default = v1::PageRequest::default();
        let request = request.unwrap_or(&default);
        let rows = match request.size {
            0 => ROWS_DEFAULT,
            size if size as usize <= purser_ledger::query::PAGE_ROWS_MAX => size,
            _ => return Err(malformed_field("page.size", "1 to 1,000; 0 means 100")),
        };
        let newest_first = match v1::SortOrder::try_from(request.order) {
            Ok(v1::SortOrder::Unspecified) => newest_first,
            Ok(v1::SortOrder::OldestFirst) => false,
            Ok(v1::SortOrder::NewestFirst) => true,
            Err(_) => return Err(malformed_field("page.order", "not an order")),
        };
        let page = Page {
            rows: rows as usize,
            newest_first,
            towards_previous: false,
            bound: None,
            question: xxh3_64(question.as_bytes()),
        };
        if request.cursor.is_empty() { Ok(page) } else { page.go_on(&request.cursor) }
    }

    fn go_on(self, cursor: &str) -> Result<Page, Status> {
        let refused = |what| malformed_field("page.cursor", what);
        let bytes = unhex(cursor).ok_or_else(|| refused("not a cursor of this server"))?;
        let [VERSION, flags @ 0..=3, rest @ ..] = bytes.as_slice() else {
            return Err(refused("not a cursor of this server"));
        };
        let Some((bound, question)) = rest.split_first_chunk::<8>() else {
            return Err(refused("not a cursor of this server"));
        };
        if question != self.question.to_be_bytes() {
            return Err(refused("made for another list or with other filters"));
        }
        // No row has such a number, and a walk may count on from it without overflow.
        let bound = u64::from_be_bytes(*bound);
        if !(1..=BOUND_MAX).contains(&bound) {
            return Err(refused("not a cursor of this server"));
        }
        Ok(Page {
            newest_first: flags & 1 != 0,
            towards_previous: flags & 2 != 0,
            bound: Some(bound),
            ..self
        })
    }

    fn cursor(&self, towards_previous: bool, bound: u64) -> String {
        let flags = u8::from(self.newest_first) | u8::from(towards_previous) << 1;
        let mut bytes = vec![VERSION, flags];
        bytes.extend_from_slice(&bound.to_be_bytes());
        bytes.extend_from_slice(&self.question.to_be_bytes());
        hex(&bytes)
    }

    /// Whether the walk goes from larger numbers to smaller ones.
    pub fn downwards(&self) -> bool {
        self.newest_first != self.towards_previous
    }

    /// Makes a page of rows found on the walk, each with its number. `stopped_at`: the walk was given
    /// up after this number, and more may follow.
    pub fn finish<T>(&self, mut found: Vec<(u64, T)>, stopped_at: Option<u64>) -> Paged<T> {
        let more = found.len() > self.rows;
        found.truncate(self.rows);
        let last = match stopped_at {
            Some(number) if !more => Some(number),
            _ if more => found.last().map(|(number, _)| *number),
            _ => None,
        };
        let first = found.first().map(|(number, _)| *number).or(self.bound);
        let onwards = last.map(|bound| self.cursor(self.towards_previous, bound));
        let back = self.bound.and(first).map(|bound| self.cursor(!self.towards_previous, bound));
        let (next, previous) = if self.towards_previous { (back, onwards) } else { (onwards, back) };
        if self.towards_previous {
            found.reverse();
        }
        let info = v1::PageInfo {
            next_cursor: next.unwrap_or_default(),
            previous_cursor: previous.unwrap_or_default(),
        };
        Paged { rows: found.into_iter().map(|(_, row)| row).collect(), info }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    digits.chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a list of the numbers 1 to 10 as a handler would.
    fn walk(page: &Page) -> Paged<u64> {
        let all = 1..=10u64;
        let take = page.rows + 1;
        let bound = page.bound;
        let found: Vec<_> = match page.downwards() {
            true => all.rev().filter(|n| bound.is_none_or(|b| *n < b)).take(take).map(|n| (n, n)).collect(),
            false => all.filter(|n| bound.is_none_or(|b| *n > b)).take(take).map(|n| (n, n)).collect(),
        };
        page.finish(found, None)
    }

    fn ask(size: u32, cursor: &str, order: v1::SortOrder) -> Page {
        let request = v1::PageRequest { size, cursor: cursor.to_owned(), order: order.into() };
        Page::read(Some(&request), true, "list").expect("a page")
    }

    #[test]
    fn a_list_is_walked_to_its_end_and_back_in_the_order_asked_for() {
        let order = v1::SortOrder::NewestFirst;
        let first = walk(&ask(4, "", order));
        assert_eq!(first.rows, [10, 9, 8, 7]);
        assert_eq!(first.info.previous_cursor, "");
        let second = walk(&ask(4, &first.info.next_cursor, order));
        assert_eq!(second.rows, [6, 5, 4, 3]);
        let third = walk(&ask(4, &second.info.next_cursor, order));
        assert_eq!(third.rows, [2, 1]);
        assert_eq!(third.info.next_cursor, "");
        let back = walk(&ask(4, &third.info.previous_cursor, order));
        assert_eq!(back.rows, [6, 5, 4, 3]);
        let front = walk(&ask(4, &back.info.previous_cursor, order));
        assert_eq!(front.rows, [10, 9, 8, 7]);
        assert_eq!(front.info.previous_cursor, "");
        let again = walk(&ask(4, &front.info.next_cursor, order));
        assert_eq!(again.rows, [6, 5, 4, 3]);
    }

    #[test]
    fn a_cursor_of_another_question_or_no_cursor_at_all_is_refused() {
        let page = walk(&ask(4, "", v1::SortOrder::OldestFirst));
        assert_eq!(page.rows, [1, 2, 3, 4]);
        for cursor in [page.info.next_cursor.as_str(), "zz", "00", "A1", "é"] {
            let request = v1::PageRequest { size: 4, cursor: cursor.to_owned(), order: 0 };
            assert!(Page::read(Some(&request), true, "another list").is_err(), "{cursor}");
        }
    }
}
