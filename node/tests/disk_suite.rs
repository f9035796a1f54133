//! The simulated disk and real files, side by side: each story is told of both, and random steps on one
//! must come to the same as on the other. What the simulation shows of the log it shows of files, too, as
//! far as a process that is killed goes; what a power cut leaves is the simulated disk's own to say.

#[path = "log_support/mod.rs"]
mod support;

use purser_node::log::{Disk, DiskFile, SimDisk};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use support::{Choices, Files, Place};

const BLOCK: u64 = 4096;

told_of_both_disks!(
    a_new_file_is_all_zeros_and_as_long_as_was_asked_for,
    what_is_written_reads_back_across_the_borders_of_sectors_and_blocks,
    nothing_is_read_beyond_the_end,
    a_name_is_made_once_and_taken_from_nobody,
    what_is_not_there_is_not_found,
    a_file_that_lost_its_name_serves_those_that_have_it_open,
    one_at_a_time_has_the_directory,
    a_killed_process_leaves_what_it_wrote_synced_or_not,
);

fn read(file: &dyn DiskFile, offset: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![9; bytes];
    file.read_at(&mut buffer, offset).expect("readable");
    buffer
}

fn names(disk: &impl Disk) -> Vec<String> {
    let mut names = disk.list().expect("a list");
    names.sort();
    names
}

fn a_new_file_is_all_zeros_and_as_long_as_was_asked_for<D: Place>() {
    let disk = D::fresh();
    for (name, bytes) in [("blocks", 2 * BLOCK), ("odd", BLOCK + 7)] {
        let file = disk.create(name, bytes).expect("made");
        assert_eq!(file.length_bytes().expect("known"), bytes);
        let bytes = usize::try_from(bytes).expect("small");
        assert_eq!(read(file.as_ref(), 0, bytes), vec![0; bytes]);
    }
    assert_eq!(names(&disk), ["blocks", "odd"]);
}

fn what_is_written_reads_back_across_the_borders_of_sectors_and_blocks<D: Place>() {
    let disk = D::fresh();
    let file = disk.create("file", 4 * BLOCK).expect("made");
    let mut expected = vec![0; 4 * BLOCK as usize];
    for (number, (offset, bytes)) in
        [(0, 2 * BLOCK), (500, 24), (BLOCK - 1, 2), (BLOCK, BLOCK), (3 * BLOCK, 700)].into_iter().enumerate()
    {
        let (from, upto) = (offset as usize, (offset + bytes) as usize);
        let written = vec![number as u8 + 1; bytes as usize];
        file.write_at(&written, offset).expect("written");
        expected[from..upto].copy_from_slice(&written);
        let again = disk.open("file").expect("opens");
        assert_eq!(read(again.as_ref(), 0, expected.len()), expected, "before a sync, by another handle");
    }
    file.sync_data().expect("synced");
    assert_eq!(read(file.as_ref(), 0, expected.len()), expected);
}

fn nothing_is_read_beyond_the_end<D: Place>() {
    let disk = D::fresh();
    let file = disk.create("file", 100).expect("made");
    let mut buffer = [0; 2];
    let error = file.read_at(&mut buffer, 99).expect_err("too far");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

fn a_name_is_made_once_and_taken_from_nobody<D: Place>() {
    let disk = D::fresh();
    disk.create("one", 10).expect("made").write_at(b"first", 0).expect("written");
    let again = disk.create("one", 10).map(drop).expect_err("there already");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    disk.create("two", 10).expect("made");
    let taken = disk.rename("two", "one").expect_err("there already");
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.contents("one").expect("there")[..5], *b"first");
    disk.rename("two", "three").expect("renamed");
    assert_eq!(names(&disk), ["one", "three"]);
}

fn what_is_not_there_is_not_found<D: Place>() {
    let disk = D::fresh();
    let kinds = [
        disk.open("nothing").map(drop).expect_err("not there").kind(),
        disk.rename("nothing", "something").expect_err("not there").kind(),
        disk.remove("nothing").expect_err("not there").kind(),
    ];
    assert_eq!(kinds, [ErrorKind::NotFound; 3]);
}

fn a_file_that_lost_its_name_serves_those_that_have_it_open<D: Place>() {
    let disk = D::fresh();
    let file = disk.create("file", 10).expect("made");
    disk.remove("file").expect("removed");
    file.write_at(b"still", 0).expect("written");
    file.sync_data().expect("synced");
    let new = disk.create("file", 10).expect("made anew");
    assert_eq!(read(file.as_ref(), 0, 5), b"still");
    assert_eq!(read(new.as_ref(), 0, 5), [0; 5]);
}

fn one_at_a_time_has_the_directory<D: Place>() {
    let disk = D::fresh();
    let lock = disk.lock().expect("free");
    let second = disk.lock().map(drop).expect_err("taken");
    assert_eq!(second.kind(), ErrorKind::WouldBlock);
    assert!(names(&disk).is_empty(), "the lock is no file");
    drop(lock);
    disk.lock().expect("free again");
}

fn a_killed_process_leaves_what_it_wrote_synced_or_not<D: Place>() {
    let disk = D::fresh();
    let file = disk.create("file", 2 * BLOCK).expect("made");
    file.write_at(&[1; 100], 0).expect("written");
    file.sync_data().expect("synced");
    file.write_at(&[2; 100], BLOCK - 50).expect("written");
    disk.rename("file", "renamed").expect("renamed");
    let left = disk.after_kill();
    file.write_at(&[3; 100], 0).expect("written later");
    assert_eq!(names(&left), ["renamed"]);
    let file = left.open("renamed").expect("there");
    assert_eq!(read(file.as_ref(), 0, 100), [1; 100]);
    assert_eq!(read(file.as_ref(), BLOCK - 50, 100), [2; 100]);
    left.lock().expect("nobody has it");
}

/// Both disks, and the handles that are open on each.
struct Pair {
    simulated: SimDisk,
    real: Files,
    open: Vec<(Arc<dyn DiskFile>, Arc<dyn DiskFile>)>,
}

impl Pair {
    fn of(simulated: SimDisk, real: Files) -> Pair {
        Pair { simulated, real, open: Vec::new() }
    }

    /// What both say to the same call; they must say the same.
    fn both<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        on_simulated: std::io::Result<T>,
        on_real: std::io::Result<T>,
    ) -> Option<T> {
        let kind = |error: std::io::Error| error.kind();
        let (simulated, real) = (on_simulated.map_err(kind), on_real.map_err(kind));
        assert_eq!(simulated, real, "{what}: simulated, then real");
        simulated.ok()
    }

    fn step(&mut self, choices: &mut Choices) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let name = NAMES[choices.below(4) as usize];
        match choices.below(12) {
            0..=1 => {
                let bytes = 1 + choices.below(3 * BLOCK);
                match (self.simulated.create(name, bytes), self.real.create(name, bytes)) {
                    (Ok(simulated), Ok(real)) => self.open.push((simulated, real)),
                    (simulated, real) => drop(self.both("create", simulated.map(drop), real.map(drop))),
                }
            }
            2 => match (self.simulated.open(name), self.real.open(name)) {
                (Ok(simulated), Ok(real)) => self.open.push((simulated, real)),
                (simulated, real) => drop(self.both("open", simulated.map(drop), real.map(drop))),
            },
            3 => {
                let to = NAMES[choices.below(4) as usize];
                if name != to {
                    self.both("rename", self.simulated.rename(name, to), self.real.rename(name, to));
                }
            }
            4 => {
                self.both("remove", self.simulated.remove(name), self.real.remove(name));
            }
            5 => {
                self.both("sync the directory", self.simulated.sync_dir(), self.real.sync_dir());
            }
            6..=8 => self.write(choices),
            9 => {
                let Some((simulated, real)) = self.one(choices) else { return };
                self.both("sync", simulated.sync_data(), real.sync_data());
            }
            10 => {
                let Some((simulated, real)) = self.one(choices) else { return };
                let length = self.both("length", simulated.length_bytes(), real.length_bytes());
                let offset = choices.below(length.unwrap_or(0) + 1);
                let (mut one, mut other) = (vec![0; 600], vec![0; 600]);
                let (simulated, real) =
                    (simulated.read_at(&mut one, offset), real.read_at(&mut other, offset));
                // What a read that fails leaves in its buffer is nobody's promise.
                if self.both("read", simulated, real).is_some() {
                    assert_eq!(one, other);
                }
            }
            _ => *self = Pair::of(self.simulated.after_kill(), self.real.after_kill()),
        }
    }

    fn one(&self, choices: &mut Choices) -> Option<(Arc<dyn DiskFile>, Arc<dyn DiskFile>)> {
        let count = self.open.len() as u64;
        (count > 0).then(|| self.open[choices.below(count) as usize].clone())
    }

    /// Writes within the file: the log never writes beyond its end.
    fn write(&mut self, choices: &mut Choices) {
        let Some((simulated, real)) = self.one(choices) else { return };
        let length = simulated.length_bytes().expect("known");
        let (mut offset, mut bytes) = (choices.below(length), 1 + choices.below(length));
        if choices.one_in(2) && length >= BLOCK {
            // Whole blocks take another way to the files.
            (offset, bytes) = (choices.below(length / BLOCK) * BLOCK, BLOCK);
        }
        let written = vec![1 + choices.below(255) as u8; bytes.min(length - offset) as usize];
        let simulated = simulated.write_at(&written, offset);
        self.both("write", simulated, real.write_at(&written, offset));
    }

    fn contents(disk: &impl Place) -> BTreeMap<String, Vec<u8>> {
        let contents = |name: String| (name.clone(), disk.contents(&name).expect("listed"));
        names(disk).into_iter().map(contents).collect()
    }
}

#[test]
fn random_steps_come_to_the_same_on_both() {
    let mut files_seen = 0;
    for seed in 0..40 {
        println!("seed {seed}");
        let mut choices = Choices(seed);
        let mut pair = Pair::of(SimDisk::fresh(), Files::fresh());
        for _ in 0..200 {
            pair.step(&mut choices);
            let (simulated, real) = (Pair::contents(&pair.simulated), Pair::contents(&pair.real));
            assert!(simulated == real, "{:?} and {:?}", simulated.keys(), real.keys());
            files_seen += simulated.len();
        }
    }
    assert!(files_seen > 5_000, "the steps hardly met a file: {files_seen}");
}
