//! PostgreSQL servers as child processes of this one, with their data and sockets in a temporary
//! directory: found, started, replicated, stopped.
//!
//! Nothing is installed: what is missing is named, with the package that has it. PostgreSQL refuses to
//! run as root; started by root, its processes run as the user that its package makes. Servers listen on
//! Unix sockets alone, in a directory that others may not enter. Whatever happens, they are stopped and
//! their data is removed when [`Cluster`] goes away.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;
use tokio_postgres::{Client, Config, NoTls};

/// Programs that are needed.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];
/// Where the packages of Debian and Ubuntu put them, by version.
const PACKAGED: &str = "/usr/lib/postgresql";
/// The user that packages make for the server.
const SERVER_USER: &str = "postgres";
/// The owner of everything inside the database.
const ROLE: &str = "purser";
/// The settings of all servers.
const SETTINGS: &str = include_str!("../../peers/postgres/postgresql.conf");
/// Tables and functions.
const SCHEMA: [&str; 3] = [
    include_str!("../../peers/postgres/schema.sql"),
    include_str!("../../peers/postgres/functions.sql"),
    include_str!("../../peers/postgres/audit.sql"),
];
/// The first server's port: the number in its socket's name, no more.
const PORT: u16 = 5_432;
/// How often it is looked whether it has come about what is waited for, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest path that a Unix socket can have, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The programs of one version of PostgreSQL, and who runs them.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    /// Another user than this process's, where it has to be another.
    user: Option<User>,
    /// What the server says of itself.
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl Programs {
    /// Looks for them: on PATH, then where packages put them, newest first.
    pub fn find() -> anyhow::Result<Programs> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path)
            // A link on PATH leads to its siblings.
            .filter_map(|folder| folder.join("initdb").canonicalize().ok())
            .filter_map(|initdb| initdb.parent().map(Path::to_owned));
        let folders: Vec<_> = on_path.chain(packaged(Path::new(PACKAGED))).collect();
        let folder = complete(&folders)?;
        let user = user_of_server()?;
        let told = Command::new(folder.join("postgres")).arg("--version").output()?;
        let told = String::from_utf8_lossy(&told.stdout);
        let version = told.trim().trim_start_matches("postgres ").replace("(PostgreSQL) ", "PostgreSQL ");
        Ok(Programs { folder, user, version })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        // Where it may not be, it would complain.
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<()> {
        let output = self.command(program).args(args).output().with_context(|| program.to_owned())?;
        ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The folders of packaged versions, newest first.
fn packaged(root: &Path) -> Vec<PathBuf> {
    let versions = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions
        .filter_map(|version| Some((version.file_name().to_str()?.parse::<u32>().ok()?, version.path())))
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, folder)| folder.join("bin")).collect()
}

/// The first folder that has all programs.
fn complete(folders: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let missing = |folder: &Path| -> Vec<&str> {
        PROGRAMS.into_iter().filter(|program| !folder.join(program).is_file()).collect()
    };
    let most =
        folders.iter().map(|folder| (missing(folder), folder)).min_by_key(|(missing, _)| missing.len());
    match most {
        Some((missing, folder)) if missing.is_empty() => Ok(folder.clone()),
        Some((missing, folder)) => bail!("{} has no {}. {INSTALL}", folder.display(), missing.join(", no ")),
        None => bail!("PostgreSQL's server is not here: no {}. {INSTALL}", PROGRAMS.join(", no ")),
    }
}

const INSTALL: &str = "The package `postgresql` of Debian and Ubuntu has them (apt-get install postgresql), \
     `postgresql-server` of Fedora; nothing is installed by itself";

/// Who runs the server: this process's own user, or the package's where that is root.
fn user_of_server() -> anyhow::Result<Option<User>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let root = uid.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0");
    if !root {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let user = user_in(&users, SERVER_USER).with_context(|| {
        format!(
            "PostgreSQL refuses to run as root, and there is no user {SERVER_USER} to run it: its package \
             makes one (apt-get install postgresql); or start this as another user"
        )
    })?;
    Ok(Some(user))
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    let mut fields =
        passwd.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?;
    let uid = fields.nth(2)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User { uid, gid })
}

/// One server: its data, and its process while it runs.
struct Server {
    data: PathBuf,
    log: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    fn start(programs: &Programs, folder: &Path, name: &str, port: u16) -> anyhow::Result<Server> {
        let (data, log) = (folder.join(name), folder.join(format!("{name}.log")));
        let told = std::fs::File::create(&log)?;
        let child = programs
            .command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string()])
            // A standby is known to its primary by this name.
            .arg("-c")
            .arg(format!("cluster_name={name}"))
            .stdout(told.try_clone()?)
            .stderr(told)
            .spawn()
            .context("postgres")?;
        Ok(Server { data, log, port, child: Some(child) })
    }

    /// The last lines of its log.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}:\n{}", self.data.display(), lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    /// Stops it at once. Its data goes, so it need not tidy up.
    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It has to remove its shared memory, so it is asked; one that cannot be asked is ended.
        let asked = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        if !asked.is_ok_and(|status| status.success()) {
            // Already gone is fine.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A server, and perhaps standbys that its commits wait for.
pub struct Cluster {
    /// The primary first, then the standbys.
    servers: Vec<Server>,
    // Dropped after the servers.
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server with tables and functions, and so many standbys: a commit then waits until any
    /// one of them has it on its disk.
    pub async fn start(programs: &Programs, directory: &Path, standbys: u16) -> anyhow::Result<Cluster> {
        let folder = tempfile::Builder::new()
            .prefix("purser-peers-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(directory)
            .with_context(|| format!("a directory in {}", directory.display()))?;
        if let Some(User { uid, gid }) = programs.user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))?;
        }
        let path = text(folder.path())?;
        ensure!(
            path.len() + "/.s.PGSQL.00000".len() <= SOCKET_PATH_BYTES_MAX,
            "{path} is too long for the path of a Unix socket: name a shorter --directory"
        );
        let data = folder.path().join("primary");
        let initdb = ["-D", text(&data)?, "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        programs.run("initdb", &initdb)?;
        let settings = format!("{SETTINGS}\nunix_socket_directories = '{path}'\n");
        let file = data.join("postgresql.conf");
        let initial = std::fs::read_to_string(&file)?;
        std::fs::write(&file, initial + &settings)?;

        let primary = Server::start(programs, folder.path(), "primary", PORT)?;
        let mut cluster = Cluster { servers: vec![primary], folder };
        let client = cluster.wait_for_start(0).await?;
        for part in SCHEMA {
            client.batch_execute(part).await.map_err(told)?;
        }
        for number in 1..=standbys {
            cluster.add_standby(programs, &client, number).await?;
        }
        if standbys > 0 {
            cluster.wait_for_standbys(&client, standbys).await?;
        }
        Ok(cluster)
    }

    async fn add_standby(
        &mut self,
        programs: &Programs,
        primary: &Client,
        number: u16,
    ) -> anyhow::Result<()> {
        let name = format!("standby_{number}");
        let slot = format!("SELECT pg_create_physical_replication_slot('{name}', true)");
        primary.batch_execute(&slot).await.map_err(told)?;
        let data = self.folder.path().join(&name);
        let (home, port) = (text(self.folder.path())?, PORT.to_string());
        let from = ["-h", home, "-p", &port, "-U", ROLE, "--slot", &name];
        let how = ["-D", text(&data)?, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync"];
        programs.run("pg_basebackup", &[&from[..], &how[..]].concat())?;
        self.servers.push(Server::start(programs, self.folder.path(), &name, PORT + number)?);
        self.wait_for_start(number.into()).await?;
        Ok(())
    }

    /// From here on commits wait for one of the standbys.
    async fn wait_for_standbys(&self, primary: &Client, standbys: u16) -> anyhow::Result<()> {
        let mut names = String::new();
        for number in 1..=standbys {
            write!(names, "{}standby_{number}", if number > 1 { ", " } else { "" })?;
        }
        let quorum = format!("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({names})'");
        primary.batch_execute(&quorum).await.map_err(told)?;
        primary.batch_execute("SELECT pg_reload_conf()").await.map_err(told)?;
        let ready =
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'";
        let until = Instant::now() + WAIT_MAX;
        while Instant::now() < until {
            let count: i64 = primary.query_one(ready, &[]).await.map_err(told)?.get(0);
            if count == i64::from(standbys) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("the standbys do not follow\n{}", self.log_tail())
    }

    /// Connects to a server as soon as it lets anyone in.
    async fn wait_for_start(&mut self, place: usize) -> anyhow::Result<Client> {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let error = match self.connect_to(place).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            let ended = self.servers[place].child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() >= until {
                return Err(error.context(format!("PostgreSQL did not start\n{}", self.log_tail())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn connect_to(&self, place: usize) -> anyhow::Result<Client> {
        let config = self.config_of(place);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn config_of(&self, place: usize) -> Config {
        let mut config = Config::new();
        config.host_path(self.folder.path()).port(self.servers[place].port).user(ROLE).dbname("postgres");
        config
    }

    /// How to reach the primary.
    pub fn config(&self) -> Config {
        self.config_of(0)
    }

    /// Brings statistics, visibility maps and files up to date, as they are where a server has run for
    /// long.
    pub async fn settle(&self) -> anyhow::Result<()> {
        let client = self.connect_to(0).await?;
        client.batch_execute("VACUUM (ANALYZE)").await.map_err(told)?;
        client.batch_execute("CHECKPOINT").await.map_err(told)
    }

    /// Whatever in the database does not add up.
    pub async fn faults(&self) -> anyhow::Result<Vec<String>> {
        let client = self.connect_to(0).await?;
        // It looks at everything: settings for looking up one wallet do not suit it, nor do statistics
        // from before the load.
        let settings = "ANALYZE; SET enable_seqscan = on; SET enable_nestloop = off; SET work_mem = '256MB'";
        client.batch_execute(settings).await.map_err(told)?;
        let rows = client.query("SELECT faults()", &[]).await.map_err(told)?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Stops a standby, counted from 1.
    #[cfg(test)]
    pub fn stop_standby(&mut self, number: usize) {
        self.servers[number].stop();
    }

    /// The servers' names and process ids; what they do is done by processes that these have started.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let named = self.servers.iter().filter_map(|server| {
            let name = server.data.file_name()?.to_string_lossy().replace('_', " ");
            Some((name, server.child.as_ref()?.id()))
        });
        named.collect()
    }

    /// The last lines that the servers logged.
    pub fn log_tail(&self) -> String {
        let tails: Vec<_> = self.servers.iter().map(Server::log_tail).collect();
        tails.join("\n")
    }
}

/// An error of the server in its own words: by itself it says no more than "db error".
pub fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(own) => {
            let place = own.where_().map(|place| format!(" ({place})")).unwrap_or_default();
            anyhow::anyhow!("PostgreSQL: {}{place}", own.message())
        }
        None => error.into(),
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_programs(folder: &Path, programs: &[&str]) {
        std::fs::create_dir_all(folder).expect("a folder");
        for program in programs {
            std::fs::write(folder.join(program), "").expect("a file");
        }
    }

    #[test]
    fn the_newest_packaged_version_comes_first() {
        let root = tempfile::tempdir().expect("a folder");
        for version in ["9", "15", "common"] {
            std::fs::create_dir(root.path().join(version)).expect("a folder");
        }
        let found: Vec<_> = ["15/bin", "9/bin"].iter().map(|version| root.path().join(version)).collect();
        assert_eq!(packaged(root.path()), found);
        assert_eq!(packaged(&root.path().join("nowhere")), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_missing_is_named_and_the_package_that_has_it() {
        let root = tempfile::tempdir().expect("a folder");
        let (some, all) = (root.path().join("some"), root.path().join("all"));
        with_programs(&some, &["initdb", "postgres"]);
        let told = complete(std::slice::from_ref(&some)).expect_err("one is missing").to_string();
        assert!(told.contains("some has no pg_basebackup. The package `postgresql`"), "{told}");
        let told = complete(&[]).expect_err("all are missing").to_string();
        assert!(told.contains("no initdb, no postgres, no pg_basebackup"), "{told}");

        with_programs(&all, &PROGRAMS);
        assert_eq!(complete(&[some, all.clone()]).expect("all are there"), all);
    }

    #[test]
    fn the_servers_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:1:2::/:/x\npostgres:x:101:104:P:/var:/x\n";
        assert_eq!(user_in(passwd, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(user_in(passwd, "nobody"), None);
    }
}
