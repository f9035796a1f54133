//! The segment files of a log: the head that is written, older ones that are read, and spares
//! that are ready ahead of their use.
//!
//! ```text
//!   oldest … used …  head | spare spare
//!   ids ascend by one ----------------->
//!   freed: the oldest takes the id after the last spare, or is removed
//! ```
//!
//! Invariants:
//! - Ids are contiguous and never used twice; a name is durable before its segment is written.
//! - Directory changes are synced one by one, so a crash undoes at most the last one.
//! - The head is written only at its tail; what was synced is never written again.

use crate::simulation::{self, Bug};

use super::disk::{Disk, DiskFile};
use super::error::is_no_space;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, RwLock};

/// Freed files kept for reuse, at most: one being due next and one for the moment after it.
const SPARES_MAX: usize = 2;
/// Zeros written in one step of preparing a spare: short beside a sync (about a millisecond).
const ZERO_STEP_BYTES: u32 = 1024 * 1024;
/// A spare that is being prepared has this name, and no restart mistakes it for a segment.
pub(crate) const UNFINISHED: &str = "spare.tmp";

/// The open files by segment id, shared with readers.
pub(crate) type Files = Arc<RwLock<BTreeMap<u64, Arc<dyn DiskFile>>>>;

pub(crate) fn file_name(segment: u64) -> String {
    format!("{segment:020}.seg")
}

pub(crate) fn segment_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let canonical = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok()).flatten()
}

struct Unfinished {
    file: Arc<dyn DiskFile>,
    zeroed_bytes: u32,
}

pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    segment_bytes: u32,
    files: Files,
    head: u64,
    tail: u32,
    head_bytes: u32,
    spares: VecDeque<(u64, Arc<dyn DiskFile>)>,
    unfinished: Option<Unfinished>,
}

impl Segments {
    /// Takes over the segments present. Those after `head` are spares.
    pub fn adopt(
        disk: Arc<dyn Disk>,
        segment_bytes: u32,
        present: BTreeMap<u64, Arc<dyn DiskFile>>,
        head: u64,
        tail: u32,
    ) -> io::Result<Segments> {
        let mut used = present;
        let spares = used.split_off(&(head + 1));
        let head_bytes = match used.get(&head) {
            Some(file) => length(file.as_ref())?,
            // A log of which nothing was readable goes on in a fresh segment.
            None => 0,
        };
        let mut segments = Segments {
            disk,
            segment_bytes,
            files: Arc::new(RwLock::new(used)),
            head,
            tail,
            head_bytes,
            spares: VecDeque::new(),
            unfinished: None,
        };
        segments.adopt_spares(spares)?;
        Ok(segments)
    }

    /// Keeps the spares that fit in number, length and order; removes the others, last one first.
    fn adopt_spares(&mut self, found: BTreeMap<u64, Arc<dyn DiskFile>>) -> io::Result<()> {
        let mut unwanted = Vec::new();
        for (id, file) in found {
            let expected = self.next_id();
            let fits = unwanted.is_empty()
                && id == expected
                && self.spares.len() < SPARES_MAX
                && length(file.as_ref())? == self.segment_bytes;
            if fits {
                self.spares.push_back((id, file));
            } else {
                unwanted.push(id);
            }
        }
        for id in unwanted.into_iter().rev() {
            self.disk.remove(&file_name(id))?;
            self.sync_dir()?;
        }
        Ok(())
    }

    pub fn files(&self) -> Files {
        Arc::clone(&self.files)
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Bytes left in the head.
    pub fn left_bytes(&self) -> u32 {
        self.head_bytes.saturating_sub(self.tail)
    }

    /// Bytes that can be written for sure: the rest of the head and the finished spares.
    pub fn ready_bytes(&self) -> u64 {
        let spares = self.spares.len() as u64 + u64::from(self.unfinished.is_some());
        u64::from(self.left_bytes()) + spares * u64::from(self.segment_bytes)
    }

    pub fn oldest(&self) -> u64 {
        let files = self.files.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        files.keys().next().copied().unwrap_or(self.head)
    }

    /// Bytes of the segments in use, head included.
    pub fn used_bytes(&self) -> u64 {
        (self.head - self.oldest() + 1) * u64::from(self.segment_bytes)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if simulation::has(Bug::DirectoryNotSynced) {
            return Ok(());
        }
        self.disk.sync_dir().map_err(never_survivable)
    }

    fn next_id(&self) -> u64 {
        self.spares.back().map_or(self.head, |(id, _)| *id) + 1
    }

    pub fn write_at_tail(&self, bytes: &[u8]) -> io::Result<()> {
        self.head_file()?.write_at(bytes, u64::from(self.tail))
    }

    pub fn sync_head(&self) -> io::Result<()> {
        self.head_file()?.sync_data()
    }

    pub fn advance(&mut self, bytes: u32) {
        self.tail += bytes;
    }

    fn head_file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let files = self.files.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        files.get(&self.head).cloned().ok_or_else(|| io::Error::other("the head is not open"))
    }

    /// Makes the first segment of a new log, zeros and all: no one waits yet.
    pub fn make_first(&mut self) -> io::Result<()> {
        self.begin_spare()?;
        while !self.zero_step()? {}
        self.finish_spare()?;
        self.roll()
    }

    /// Goes on in the next segment. Fails with "no room" if none can be made.
    pub fn roll(&mut self) -> io::Result<()> {
        if self.spares.is_empty() {
            self.begin_spare()?;
            self.finish_spare()?;
        }
        let Some((id, file)) = self.spares.pop_front() else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        self.head_bytes = length(file.as_ref())?;
        self.head = id;
        self.tail = 0;
        self.files.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(id, file);
        Ok(())
    }

    /// Makes spares until this many bytes are ready.
    pub fn ensure(&mut self, bytes: u64) -> io::Result<()> {
        while self.ready_bytes() < bytes {
            self.finish_spare()?;
            self.begin_spare()?;
        }
        Ok(())
    }

    /// One step towards having a spare. "No room" is not an error here: it is tried again later.
    pub fn prepare(&mut self) -> io::Result<()> {
        if !self.spares.is_empty() {
            return Ok(());
        }
        if self.unfinished.is_none() {
            if self.disk.free_bytes()? < u64::from(self.segment_bytes) {
                return Ok(());
            }
            return survive_no_space(self.begin_spare());
        }
        match self.zero_step() {
            Ok(true) => self.finish_spare(),
            Ok(false) => Ok(()),
            Err(error) => survive_no_space(Err(error)),
        }
    }

    /// True if `prepare` has something to do, or waits for room to do it in.
    pub fn wants_spare(&self) -> bool {
        self.spares.is_empty()
    }

    fn begin_spare(&mut self) -> io::Result<()> {
        if self.unfinished.is_none() {
            let file = self.disk.create(UNFINISHED, u64::from(self.segment_bytes))?;
            self.unfinished = Some(Unfinished { file, zeroed_bytes: 0 });
        }
        Ok(())
    }

    /// Writes the next zeros and says whether they were the last.
    fn zero_step(&mut self) -> io::Result<bool> {
        let Some(unfinished) = self.unfinished.as_mut() else { return Ok(false) };
        let step = ZERO_STEP_BYTES.min(self.segment_bytes - unfinished.zeroed_bytes);
        let zeros = vec![0; step as usize];
        unfinished.file.write_at(&zeros, u64::from(unfinished.zeroed_bytes))?;
        unfinished.file.sync_data().map_err(never_survivable)?;
        unfinished.zeroed_bytes += step;
        Ok(unfinished.zeroed_bytes == self.segment_bytes)
    }

    fn finish_spare(&mut self) -> io::Result<()> {
        if self.unfinished.is_none() {
            return Ok(());
        }
        let id = self.next_id();
        self.disk.rename(UNFINISHED, &file_name(id))?;
        self.sync_dir()?;
        self.spares.extend(self.unfinished.take().map(|unfinished| (id, unfinished.file)));
        Ok(())
    }

    /// Frees the segments older than `keep`: reused as spares or removed. Returns how many.
    pub fn free_below(&mut self, keep: u64) -> io::Result<usize> {
        let mut freed = 0;
        loop {
            let oldest = self.oldest();
            if oldest >= keep.min(self.head) {
                return Ok(freed);
            }
            let file = self.files.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&oldest);
            let Some(file) = file else { return Ok(freed) };
            let reusable = length(file.as_ref())? == self.segment_bytes;
            if reusable && self.spares.len() < SPARES_MAX {
                let id = self.next_id();
                self.disk.rename(&file_name(oldest), &file_name(id))?;
                self.spares.push_back((id, file));
            } else {
                self.disk.remove(&file_name(oldest))?;
            }
            self.sync_dir()?;
            freed += 1;
        }
    }
}

fn length(file: &dyn DiskFile) -> io::Result<u32> {
    u32::try_from(file.length_bytes()?).map_err(|_| io::Error::other("a segment over 4 GiB"))
}

/// A failed sync is fatal even if the reason is a full disk: what it lost is unknown.
fn never_survivable(error: io::Error) -> io::Error {
    io::Error::other(format!("a sync failed: {error}"))
}

fn survive_no_space(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_no_space(&error) => Ok(()),
        other => other,
    }
}
