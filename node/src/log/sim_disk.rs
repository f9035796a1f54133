//! A `Disk` in memory that fails on purpose, the same way each time. These faults, and no others:
//!
//! - **Killed process** (`duplicate`): what was written reads back, synced or not, and no more; what was
//!   not synced may still be lost at a later power cut.
//! - **Power cut** (`crash`): of what was written and not synced, each sector keeps any of the
//!   contents that it was given, or its old one. Sectors are 512 B or 4 KiB, as the seed says; so
//!   writes are torn anywhere, in any subset, and kept in any order.
//! - **Lost directory entries** (`crash`): each `create`, `rename` and `remove` that was not synced
//!   is kept or lost, whole, independent of the others.
//! - **Power cut at a chosen operation** (`cut_power_after`): every operation from then on fails
//!   and changes nothing, but the one under way, which may be half done.
//! - **Failed sync** (`fail_sync`): of a file or of the directory. What it should have made durable
//!   still reads back, counts as clean for later syncs, and is lost at the power cut.
//! - **Full disk**: `set_capacity` (at `create`), `fail_write` with "no space" (after a part of the
//!   write).
//! - **Failed or short write** (`fail_write`): any number of its first sectors are written; never
//!   all of them if the reason is "no space".
//! - **Bit rot** (`rot`): chosen bits of what is durable flip.
//! - **Unreadable block** (`make_unreadable`): reading it fails until it is written again.
//! - **Slow and stalling operations** (`on_operation`): the hook sees each operation before it is done
//!   and may take its time. In the simulation a run of the log takes its time as a whole, and stalls
//!   as a whole (`simulated`).
//! - **A file that is gone** (`lose_file`), as by an operator's mistake.
//!
//! Not modelled: a sync that lies, a write that lands in the wrong place, a file that shrinks.
//!
//! Without faults, and when its process is killed, it is what a directory of files is: the stories and
//! the random steps of `node/tests/disk_suite.rs`, and the log's own (`log_stories.rs`,
//! `log_model.rs`), are told of both.
//!
//! No threads, no clock, no randomness but the seed of `crash`.

use super::disk::{DirLock, Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The smallest unit that a disk writes whole.
pub const SECTOR_BYTES: usize = 512;
const SECTORS_PER_BLOCK: u64 = 8;

type Sector = [u8; SECTOR_BYTES];
const ZEROS: Sector = [0; SECTOR_BYTES];

/// One operation, as the hook sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file is made, renamed or removed.
    Directory,
    /// So many bytes are read.
    Read(usize),
    /// So many bytes are written.
    Write(usize),
    /// A file is synced.
    SyncData,
    /// The directory is synced.
    SyncDirectory,
}

type Hook = Arc<dyn Fn(Operation) + Send + Sync>;

#[derive(Clone, Default)]
struct Inode {
    length_bytes: u64,
    durable: BTreeMap<u64, Sector>,
    /// Written since the last sync, each content in order.
    dirty: BTreeMap<u64, Vec<Sector>>,
    /// Written before a sync that failed: reads back, will never be durable.
    phantom: BTreeMap<u64, Sector>,
    unreadable: BTreeSet<u64>,
}

impl Inode {
    fn sector(&self, at: u64) -> &Sector {
        let dirty = self.dirty.get(&at).and_then(|versions| versions.last());
        dirty.or_else(|| self.phantom.get(&at)).or_else(|| self.durable.get(&at)).unwrap_or(&ZEROS)
    }

    fn sync(&mut self) {
        for (at, versions) in std::mem::take(&mut self.dirty) {
            self.durable.extend(versions.last().map(|sector| (at, *sector)));
        }
    }

    fn fail_sync(&mut self) {
        for (at, versions) in std::mem::take(&mut self.dirty) {
            self.phantom.extend(versions.last().map(|sector| (at, *sector)));
        }
    }

    /// What a power cut leaves.
    fn survive(&mut self, random: &mut Random) {
        let whole_blocks = random.below(2) == 0;
        let mut block = (u64::MAX, 0);
        for (at, versions) in std::mem::take(&mut self.dirty) {
            let mut pick = random.below(versions.len() as u64 + 1);
            if whole_blocks {
                if block.0 != at / SECTORS_PER_BLOCK {
                    block = (at / SECTORS_PER_BLOCK, pick);
                }
                pick = block.1.min(versions.len() as u64);
            }
            let kept = usize::try_from(pick).ok().and_then(|pick| versions.get(pick.checked_sub(1)?));
            self.durable.extend(kept.map(|sector| (at, *sector)));
        }
        self.phantom.clear();
    }
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

/// A fault to come: after so many more operations of its kind.
#[derive(Clone, Copy)]
struct Planned<T> {
    after: u64,
    what: T,
}

impl<T: Copy> Planned<T> {
    /// Counts one operation; says what happens to it.
    fn strike(slot: &mut Option<Planned<T>>) -> Option<T> {
        let planned = slot.as_mut()?;
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        slot.take().map(|planned| planned.what)
    }
}

#[derive(Clone, Copy)]
struct WriteFault {
    kept_sectors: usize,
    kind: io::ErrorKind,
}

#[derive(Clone)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    capacity_bytes: u64,
    locked: bool,
    off: bool,
    operations: u64,
    power_cut: Option<u64>,
    sync_fault: Option<Planned<()>>,
    write_fault: Option<Planned<WriteFault>>,
    hook: Option<Hook>,
}

/// A simulated directory. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty directory on a disk without bounds.
    pub fn new() -> SimDisk {
        SimDisk::of(World {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            capacity_bytes: u64::MAX,
            locked: false,
            off: false,
            operations: 0,
            power_cut: None,
            sync_fault: None,
            write_fault: None,
            hook: None,
        })
    }

    fn of(world: World) -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(world)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Cuts the power. Returns what the disk holds when it comes back; this one is off for ever.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut random = Random(seed);
        let mut world = {
            let mut old = self.world();
            old.off = true;
            old.clone()
        };
        let mut names = std::mem::take(&mut world.durable_names);
        for change in std::mem::take(&mut world.changes) {
            if random.below(2) == 0 {
                apply(&mut names, &change);
            }
        }
        world.inodes.iter_mut().for_each(|inode| inode.survive(&mut random));
        // Nobody can name what has no entry any more.
        for (number, inode) in world.inodes.iter_mut().enumerate() {
            if !names.values().any(|named| *named == number) {
                *inode = Inode::default();
            }
        }
        SimDisk::of(World {
            names: names.clone(),
            durable_names: names,
            locked: false,
            off: false,
            power_cut: None,
            sync_fault: None,
            write_fault: None,
            ..world
        })
    }

    /// A copy of this disk at this moment, as if its process were gone and the machine still on.
    /// Faults that were still to come are not.
    pub fn duplicate(&self) -> SimDisk {
        let world = self.world().clone();
        SimDisk::of(World { locked: false, power_cut: None, sync_fault: None, write_fault: None, ..world })
    }

    /// Whether its power was cut.
    pub fn is_off(&self) -> bool {
        self.world().off
    }

    /// How many operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Lets so many more operations succeed, then cuts the power under the next one.
    pub fn cut_power_after(&self, operations: u64) {
        self.world().power_cut = Some(operations);
    }

    /// Makes a sync fail: the next one after so many.
    pub fn fail_sync(&self, after: u64) {
        self.world().sync_fault = Some(Planned { after, what: () });
    }

    /// Makes a write fail, the next one after so many, with this kind of error and after so many
    /// of its sectors.
    pub fn fail_write(&self, after: u64, kept_sectors: usize, kind: io::ErrorKind) {
        let what = WriteFault { kept_sectors, kind };
        self.world().write_fault = Some(Planned { after, what });
    }

    /// The sum of all files' lengths that the disk can hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity_bytes = bytes;
    }

    /// Calls this before each operation.
    pub fn on_operation(&self, hook: impl Fn(Operation) + Send + Sync + 'static) {
        self.world().hook = Some(Arc::new(hook));
    }

    /// Flips the bits of `mask` in one byte of a file, durably. False if there is no such byte.
    pub fn rot(&self, name: &str, offset: u64, mask: u8) -> bool {
        let mut world = self.world();
        let Some(inode) = world.names.get(name).copied() else { return false };
        let inode = &mut world.inodes[inode];
        if offset >= inode.length_bytes {
            return false;
        }
        let at = offset / SECTOR_BYTES as u64;
        let mut sector = *inode.sector(at);
        sector[to_usize(offset % SECTOR_BYTES as u64)] ^= mask;
        inode.dirty.remove(&at);
        inode.phantom.remove(&at);
        inode.durable.insert(at, sector);
        true
    }

    /// Makes the sector at an offset unreadable until it is written again.
    pub fn make_unreadable(&self, name: &str, offset: u64) -> bool {
        let mut world = self.world();
        let Some(inode) = world.names.get(name).copied() else { return false };
        world.inodes[inode].unreadable.insert(offset / SECTOR_BYTES as u64);
        true
    }

    /// What a file holds now, if it is there.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        let inode = &world.inodes[*world.names.get(name)?];
        let sectors = inode.length_bytes.div_ceil(SECTOR_BYTES as u64);
        let mut bytes: Vec<u8> = (0..sectors).flat_map(|at| *inode.sector(at)).collect();
        bytes.truncate(to_usize(inode.length_bytes));
        Some(bytes)
    }

    /// Removes a file without a trace, as an operator's mistake would.
    pub fn lose_file(&self, name: &str) -> bool {
        let mut world = self.world();
        world.durable_names.remove(name);
        world.names.remove(name).is_some()
    }

    /// Counts an operation and says whether it may go on; `true` if the power fails under it.
    fn begin(&self, operation: Operation) -> io::Result<(MutexGuard<'_, World>, bool)> {
        let hook = self.world().hook.clone();
        if let Some(hook) = hook {
            hook(operation);
        }
        let mut world = self.world();
        world.operations += 1;
        if world.off {
            return Err(io::Error::other("the power is off"));
        }
        let cut = match world.power_cut.as_mut() {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        world.off |= cut;
        Ok((world, cut))
    }

    fn change(&self, change: impl FnOnce(&mut World) -> io::Result<Change>) -> io::Result<()> {
        let (mut world, cut) = self.begin(Operation::Directory)?;
        let change = change(&mut world)?;
        apply(&mut world.names, &change);
        world.changes.push(change);
        if cut { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }
}

struct SimLock(SimDisk);

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        let mut world = self.world();
        if world.off {
            return Err(io::Error::other("the power is off"));
        }
        if std::mem::replace(&mut world.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock(self.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let (world, _) = self.begin(Operation::Read(0))?;
        Ok(world.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut made = 0;
        self.change(|world| {
            if world.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if world.free_bytes() < bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            made = world.inodes.len();
            world.inodes.push(Inode { length_bytes: bytes, ..Inode::default() });
            Ok(Change::Create(name.to_owned(), made))
        })?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode: made }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let (world, _) = self.begin(Operation::Read(0))?;
        let inode = *world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|world| match (world.names.contains_key(from), world.names.contains_key(to)) {
            (false, _) => Err(io::ErrorKind::NotFound.into()),
            (true, true) => Err(io::ErrorKind::AlreadyExists.into()),
            (true, false) => Ok(Change::Rename(from.to_owned(), to.to_owned())),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|world| match world.names.contains_key(name) {
            true => Ok(Change::Remove(name.to_owned())),
            false => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut world, cut) = self.begin(Operation::SyncDirectory)?;
        if cut || Planned::strike(&mut world.sync_fault).is_some() {
            return Err(io::Error::other("the directory could not be synced"));
        }
        for change in std::mem::take(&mut world.changes) {
            apply(&mut world.durable_names, &change);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.world().free_bytes())
    }
}

impl World {
    fn free_bytes(&self) -> u64 {
        let used: u64 = self.names.values().map(|inode| self.inodes[*inode].length_bytes).sum();
        self.capacity_bytes.saturating_sub(used)
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl DiskFile for SimFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.world().inodes[self.inode].length_bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (world, _) = self.disk.begin(Operation::Read(buffer.len()))?;
        let inode = &world.inodes[self.inode];
        if offset + buffer.len() as u64 > inode.length_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let sector_at = at / SECTOR_BYTES as u64;
            if inode.unreadable.contains(&sector_at) {
                return Err(io::Error::other("an unreadable sector"));
            }
            let from = to_usize(at % SECTOR_BYTES as u64);
            let count = rest.len().min(SECTOR_BYTES - from);
            let (now, later) = std::mem::take(&mut rest).split_at_mut(count);
            now.copy_from_slice(&inode.sector(sector_at)[from..from + count]);
            at += count as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut world, cut) = self.disk.begin(Operation::Write(bytes.len()))?;
        let fault = Planned::strike(&mut world.write_fault);
        let inode = &mut world.inodes[self.inode];
        if offset + bytes.len() as u64 > inode.length_bytes {
            return Err(io::Error::other("a write past the end of a segment"));
        }
        let mut at = offset;
        let mut rest = bytes;
        let sectors = bytes.len().div_ceil(SECTOR_BYTES);
        let mut sectors_left = match fault {
            None => usize::MAX,
            Some(fault) if fault.kind == io::ErrorKind::StorageFull => {
                fault.kept_sectors.min(sectors.saturating_sub(1))
            }
            Some(fault) => fault.kept_sectors,
        };
        while !rest.is_empty() && sectors_left > 0 {
            let sector_at = at / SECTOR_BYTES as u64;
            let from = to_usize(at % SECTOR_BYTES as u64);
            let count = rest.len().min(SECTOR_BYTES - from);
            let mut sector = *inode.sector(sector_at);
            sector[from..from + count].copy_from_slice(&rest[..count]);
            inode.phantom.remove(&sector_at);
            inode.unreadable.remove(&sector_at);
            inode.dirty.entry(sector_at).or_default().push(sector);
            at += count as u64;
            rest = &rest[count..];
            sectors_left -= 1;
        }
        match fault {
            Some(fault) => Err(fault.kind.into()),
            // What was written is dirty; the crash that follows picks what is kept.
            None if cut => Err(io::Error::other("the power failed")),
            None => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut world, cut) = self.disk.begin(Operation::SyncData)?;
        if cut {
            return Err(io::Error::other("the power failed"));
        }
        let failed = Planned::strike(&mut world.sync_fault).is_some();
        let inode = &mut world.inodes[self.inode];
        if failed {
            inode.fail_sync();
            return Err(io::Error::other("a sync failed"));
        }
        inode.sync();
        Ok(())
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("simulated files fit in memory")
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough randomness for picking sectors, from one word.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
