//! What a span of time cost: CPU and bytes written of each process, and how busy the machine and its
//! disk were, from `/proc`.
//!
//! Bytes of a process are those that it handed to `write` calls (`wchar`), files and sockets alike. The
//! kernel's other count, `write_bytes`, is of no use here: where the page cache works in large folios,
//! it counts a whole folio for each small write into it. What reached the disk is counted at the
//! device, for the whole machine.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use tokio::time::Instant;

/// Ticks of `/proc/*/stat` a second: fixed in the kernel's interface, whatever its timer does.
const TICKS_A_SECOND: u64 = 100;

/// The unit of `/proc/diskstats`, whatever the disk's own.
const SECTOR_BYTES: u64 = 512;

/// What is to be watched.
pub struct Watched {
    /// Processes whose use is told apart.
    pub processes: Vec<Process>,
    /// The device that holds the servers' data, if it is one of this machine.
    pub device: Option<Device>,
}

/// A process, alone or with its family.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name in the report.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// Whether the processes that it has started, and those that they have started, are counted as its
    /// own: for servers that are many processes.
    pub with_descendants: bool,
}

/// A block device: its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    major: u64,
    minor: u64,
}

impl Device {
    /// The device that a directory is on; `None` for one in memory.
    pub fn of(directory: &Path) -> Option<Device> {
        let number = std::fs::metadata(directory).ok()?.dev();
        // As in glibc's gnu_dev_major and gnu_dev_minor.
        let major = (number >> 8 & 0xfff) | (number >> 32 & 0xffff_f000);
        let minor = (number & 0xff) | (number >> 12 & 0xffff_ff00);
        let device = Device { major, minor };
        device.written_bytes(&std::fs::read_to_string("/proc/diskstats").ok()?).map(|_| device)
    }

    /// The tenth field counts sectors written.
    fn written_bytes(self, diskstats: &str) -> Option<u64> {
        let number = |field: Option<&&str>| field?.parse::<u64>().ok();
        diskstats.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let own = (number(fields.first())?, number(fields.get(1))?) == (self.major, self.minor);
            number(fields.get(9)).filter(|_| own).map(|sectors| sectors * SECTOR_BYTES)
        })
    }
}

/// A look at one moment.
pub struct Snapshot {
    at: Instant,
    machine: MachineTicks,
    device_written_bytes: Option<u64>,
    processes: Vec<ProcessSnapshot>,
}

#[derive(Clone, Copy, Default)]
struct MachineTicks {
    busy: u64,
    cores: u64,
}

struct ProcessSnapshot {
    name: String,
    cpu_ticks: u64,
    written_bytes: u64,
    resident_bytes: u64,
    /// Name and ticks of each thread.
    threads: BTreeMap<u32, (String, u64)>,
}

/// What was used between two looks.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// How long it was, in milliseconds.
    pub span_ms: u64,
    /// Cores of the machine.
    pub cores: u64,
    /// CPU time of the whole machine, in milliseconds.
    pub machine_cpu_ms: u64,
    /// Bytes written to the device that holds the servers' data, by whomever.
    pub device_written_bytes: Option<u64>,
    /// The processes watched.
    pub processes: Vec<ProcessUsage>,
}

/// What one process used.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessUsage {
    /// Its name here.
    pub name: String,
    /// CPU time, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes that it handed to `write` calls.
    pub written_bytes: u64,
    /// Its memory at the end of the span (resident set), in bytes.
    pub resident_bytes: u64,
    /// The thread that used the most CPU time.
    pub busiest_thread: String,
    /// Its CPU time, in milliseconds.
    pub busiest_thread_cpu_ms: u64,
}

/// A process's memory (resident set), in bytes; one that is ending has none.
fn resident_bytes(home: &Path) -> u64 {
    let status = std::fs::read_to_string(home.join("status")).unwrap_or_default();
    named_number(&status, "VmRSS:").unwrap_or(0) * 1_024
}

/// A process's memory (resident set), in bytes.
pub fn memory_of(pid: u32) -> u64 {
    resident_bytes(&Path::new("/proc").join(pid.to_string()))
}

impl Snapshot {
    /// Looks now.
    pub fn take(watched: &Watched) -> anyhow::Result<Snapshot> {
        let processes = watched.processes.iter().map(ProcessSnapshot::take);
        let processes = processes.collect::<anyhow::Result<_>>()?;
        let device_written_bytes = match watched.device {
            Some(device) => device.written_bytes(&std::fs::read_to_string("/proc/diskstats")?),
            None => None,
        };
        Ok(Snapshot { at: Instant::now(), machine: machine_ticks()?, device_written_bytes, processes })
    }

    /// What was used since an earlier look.
    pub fn since(&self, earlier: &Snapshot) -> Usage {
        let processes = self.processes.iter().zip(&earlier.processes).map(|(now, then)| now.since(then));
        Usage {
            span_ms: self.at.duration_since(earlier.at).as_millis() as u64,
            cores: self.machine.cores,
            machine_cpu_ms: ms(self.machine.busy.saturating_sub(earlier.machine.busy)),
            device_written_bytes: self
                .device_written_bytes
                .zip(earlier.device_written_bytes)
                .map(|(now, then)| now.saturating_sub(then)),
            processes: processes.collect(),
        }
    }
}

impl ProcessSnapshot {
    fn take(process: &Process) -> anyhow::Result<ProcessSnapshot> {
        let mut own = ProcessSnapshot::alone(process.pid)
            .with_context(|| format!("process {} ({})", process.pid, process.name))?;
        own.name.clone_from(&process.name);
        if process.with_descendants {
            // One that has just ended is left out.
            for other in
                descendants(process.pid)?.into_iter().filter_map(|pid| ProcessSnapshot::alone(pid).ok())
            {
                own.cpu_ticks += other.cpu_ticks;
                own.written_bytes += other.written_bytes;
                own.resident_bytes += other.resident_bytes;
                own.threads.extend(other.threads);
            }
        }
        Ok(own)
    }

    fn alone(pid: u32) -> anyhow::Result<ProcessSnapshot> {
        let home = Path::new("/proc").join(pid.to_string());
        let Stat { name, cpu_ticks, .. } = stat(&home)?;
        let number = |file: &str, field: &str| {
            let text = std::fs::read_to_string(home.join(file))?;
            named_number(&text, field).with_context(|| format!("{file} of process {pid} has no {field}"))
        };
        let written_bytes = number("io", "wchar:")?;
        let resident_bytes = resident_bytes(&home);
        let mut threads = BTreeMap::new();
        for thread in std::fs::read_dir(home.join("task"))? {
            let thread = thread?;
            let id = thread.file_name().to_string_lossy().parse()?;
            // One that has just ended is left out.
            if let Ok(Stat { name, cpu_ticks, .. }) = stat(&thread.path()) {
                threads.insert(id, (name, cpu_ticks));
            }
        }
        Ok(ProcessSnapshot { name, cpu_ticks, written_bytes, resident_bytes, threads })
    }

    fn since(&self, earlier: &ProcessSnapshot) -> ProcessUsage {
        let threads = self.threads.iter().map(|(id, (name, ticks))| {
            let before = earlier.threads.get(id).map_or(0, |(_, ticks)| *ticks);
            (ticks.saturating_sub(before), name)
        });
        let (busiest_ticks, busiest) = threads.max().map_or((0, ""), |(ticks, name)| (ticks, name.as_str()));
        ProcessUsage {
            name: self.name.clone(),
            cpu_ms: ms(self.cpu_ticks.saturating_sub(earlier.cpu_ticks)),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            resident_bytes: self.resident_bytes,
            busiest_thread: busiest.to_owned(),
            busiest_thread_cpu_ms: ms(busiest_ticks),
        }
    }
}

fn ms(ticks: u64) -> u64 {
    ticks * 1_000 / TICKS_A_SECOND
}

/// The number behind a name at the beginning of a line.
fn named_number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The processes that a process has started, and those that they have started.
fn descendants(ancestor: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for home in std::fs::read_dir("/proc")? {
        let home = home?;
        let pid = home.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(pid), Ok(Stat { parent, .. })) = (pid, stat(&home.path())) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&ancestor).unwrap_or_default();
    let mut looked_at = 0;
    while let Some(pid) = found.get(looked_at) {
        let more = children.remove(pid).unwrap_or_default();
        found.extend(more);
        looked_at += 1;
    }
    Ok(found)
}

/// What the kernel tells of a process or thread.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    /// The process that started it.
    parent: u32,
    /// User and system time.
    cpu_ticks: u64,
}

fn stat(home: &Path) -> anyhow::Result<Stat> {
    let text = std::fs::read_to_string(home.join("stat"))?;
    parse_stat(&text).with_context(|| format!("{} reads differently: {text}", home.display()))
}

/// The name stands in brackets and may hold anything; the parent is the 4th field, user and system time
/// are the 14th and 15th.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Stat { name: name.to_owned(), parent, cpu_ticks: user + system })
}

fn machine_ticks() -> anyhow::Result<MachineTicks> {
    let text = std::fs::read_to_string("/proc/stat")?;
    parse_machine(&text).context("/proc/stat reads differently")
}

/// All but idle and waiting for the disk, over all cores. Guests are counted in user time already.
fn parse_machine(text: &str) -> Option<MachineTicks> {
    let first = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = first.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, ..] = fields[..] else {
        return None;
    };
    let core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cores = text.lines().filter(core).count() as u64;
    Some(MachineTicks { busy: user + nice + system + interrupts + soft_interrupts, cores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194560 7 0 0 0 120 34 0 0 20 0 9 0 100 1 1";
        let stat = Stat { name: "a) b (c".to_owned(), parent: 1, cpu_ticks: 154 };
        assert_eq!(parse_stat(text), Some(stat));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn a_busy_machine_is_neither_idle_nor_waiting() {
        let text = "cpu  10 1 5 1000 500 2 3 7 0 0\ncpu0 5 1 3 500 250 1 2 0 0 0\ncpu1 5 0 2 500 250 1 1 0 0 0\nintr 9\n";
        let ticks = parse_machine(text).expect("ticks");
        assert_eq!((ticks.busy, ticks.cores), (21, 2));
    }

    #[test]
    fn what_a_device_wrote_is_found_by_its_numbers() {
        let text = " 254  0 vda 1 2 3 4 5 6 700 8 0 9\n 254 1 vda1 1 2 3 4 5 6 70 8 0 9\n";
        let device = |major, minor| Device { major, minor }.written_bytes(text);
        assert_eq!(device(254, 0), Some(700 * 512));
        assert_eq!(device(254, 1), Some(70 * 512));
        assert_eq!(device(0, 1), None);
    }

    #[test]
    fn this_process_is_seen_and_what_it_has_started() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let process = |name: &str, with_descendants| Process {
            name: name.to_owned(),
            pid: std::process::id(),
            with_descendants,
        };
        let processes = vec![process("own", false), process("family", true)];
        let watched = Watched { processes, device: None };
        let (before, after) =
            (Snapshot::take(&watched).expect("one"), Snapshot::take(&watched).expect("another"));
        child.kill().and_then(|()| child.wait()).expect("it ends");
        let usage = after.since(&before);
        assert_eq!(usage.processes.len(), 2);
        assert!(usage.processes[0].resident_bytes > 0);
        assert!(usage.processes[1].resident_bytes > usage.processes[0].resident_bytes);
        assert!(usage.cores > 0);
    }
}
