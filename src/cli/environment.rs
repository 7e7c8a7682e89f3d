//! What surrounds a run: environment variables, the clock, the machine and versions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The environment variables that are text.
pub fn variables() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The current time, as RFC 3339 writes it, in whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Machine, system and versions, for the lock, the summary and the report.
///
/// `folder` is where a git commit is looked for.
pub fn record(folder: &Path) -> BTreeMap<String, String> {
    let entry = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    let entries = [
        entry("sft_run", Some(env!("CARGO_PKG_VERSION").to_owned())),
        entry("os", Some(operating_system())),
        entry("architecture", Some(std::env::consts::ARCH.to_owned())),
        entry("cpu", cpu_model()),
        entry("cores", Some(cores().to_string())),
        entry("memory", memory()),
        entry("git_commit", git(folder, &["rev-parse", "HEAD"])),
        entry(
            "git_dirty",
            git(folder, &["status", "--porcelain"])
                .map(|changes| (!changes.is_empty()).to_string()),
        ),
    ];
    entries.into_iter().flatten().collect()
}

/// Threads that this process may run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What `git` prints in `folder`, without the line end; none where there is no repository.
pub fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn operating_system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = pretty.map_or(std::env::consts::OS, |name| name.trim_matches('"'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel.is_empty() { name.to_owned() } else { format!("{name}, kernel {}", kernel.trim()) }
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<String> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(crate::report::numbers::bytes(kilobytes * 1024))
}
