//! The machine that figures are from.

use std::path::Path;

use serde::Serialize;

/// What a reader of figures needs to know of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores that may be used.
    pub cores: usize,
    /// The processor's name.
    pub cpu: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The sort and device of the file system that holds the servers' data.
    pub disk: String,
    /// The load average of the last minute, before anything was started.
    pub load_before: String,
}

impl Machine {
    /// In one line.
    pub fn told(&self) -> String {
        let Machine { cores, cpu, memory_mib, kernel, disk, load_before } = self;
        format!(
            "{cores} cores ({cpu}), {memory_mib} MiB, Linux {kernel}, data on {disk}, load average before {load_before}"
        )
    }

    /// Looks at this machine; what cannot be told is `?`.
    pub fn look(data: &Path) -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        let memory = after(&read("/proc/meminfo"), "MemTotal:");
        let memory_kib = memory.and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok());
        Machine {
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            cpu: or_unknown(after(&read("/proc/cpuinfo"), "model name")),
            memory_mib: memory_kib.unwrap_or(0) / 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            disk: or_unknown(data.canonicalize().ok().and_then(|data| disk(&read("/proc/mounts"), &data))),
            load_before: or_unknown(read("/proc/loadavg").split(' ').next().map(str::to_owned)),
        }
    }
}

/// What stands behind a name and perhaps a colon in the first line that begins with it.
fn after(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

/// The file system of a path: the last of those mounted at its longest part.
fn disk(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, place, sort) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(place).then_some((place.len(), format!("{sort} on {device}")))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, disk)| disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_file_system_mounted_closest_to_it() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/big xfs rw 0 0\n";
        let told = |path: &str| disk(mounts, Path::new(path)).expect("a disk");
        assert_eq!(told("/home/ada"), "ext4 on /dev/vda");
        assert_eq!(told("/tmp/x"), "tmpfs on tmpfs");
        assert_eq!(told("/tmp/big/x"), "xfs on /dev/vdb");
        assert_eq!(told("/tmpfoo"), "ext4 on /dev/vda");
    }

    #[test]
    fn a_line_is_found_by_its_name() {
        let text = "processor\t: 0\nmodel name\t: A Chip @ 2 GHz\n";
        assert_eq!(after(text, "model name"), Some("A Chip @ 2 GHz".to_owned()));
        assert_eq!(after("MemTotal:       24576 kB\n", "MemTotal:"), Some("24576 kB".to_owned()));
        assert_eq!(after(text, "cache"), None);
    }
}
