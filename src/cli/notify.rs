//! Tells a program how a run ended (`notify` in the recipe), or that it was refused before it began.

use super::environment;
use super::failure::Failure;
use super::terminal::{Paint, Terminal};
use crate::plan::around::Notification;
use crate::recipe::CheckedRecipe;
use crate::report::summary::{self, RunState, Summary};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the program may take.
const LONGEST: Duration = Duration::from_mins(1);

/// A run that has not begun, and who is told when it is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    terminal: Terminal,
    notification: Notification,
    recipe_folder: PathBuf,
    summary: Summary,
}

impl Refusal {
    /// A run of the recipe at `path`, begun by `command` at the time `started`.
    pub(super) fn of(
        (terminal, command): (&Terminal, &[String]),
        (path, checked): (&Path, &CheckedRecipe),
        started: &str,
    ) -> Refusal {
        let summary = Summary {
            version: summary::VERSION,
            name: checked.name().to_owned(),
            recipe: path.display().to_string(),
            command: command.to_vec(),
            started: started.to_owned(),
            seconds: 0.0,
            state: RunState::Failed,
            error: None,
            parameters: None,
            stages: Vec::new(),
            environment: environment::machine(),
            inputs: BTreeMap::new(),
            crates: BTreeMap::new(),
            device_seconds: 0.0,
        };
        let notification = Notification::of(checked);
        let recipe_folder = checked.folder().to_owned();
        Refusal { terminal: *terminal, notification, recipe_folder, summary }
    }

    /// The result, its failure told to the program.
    pub(super) fn told<T, E: Into<Failure>>(&self, result: Result<T, E>) -> Result<T, Failure> {
        result.map_err(|failure| {
            let failure = failure.into();
            let summary = Summary { error: Some(failure.message()), ..self.summary.clone() };
            tell(&self.terminal, (&self.recipe_folder, None), &self.notification, &summary);
            failure
        })
    }
}

/// Runs the program for how the run ended, if the recipe names one; its failure is a remark.
///
/// `run_folder` is none for a run that was refused before it had one.
pub(super) fn tell(
    terminal: &Terminal,
    (recipe_folder, run_folder): (&Path, Option<&Path>),
    notification: &Notification,
    summary: &Summary,
) {
    let well = matches!(summary.state, RunState::Done | RunState::UpToDate);
    let (key, words) = if well {
        ("notify.on_success", &notification.on_success)
    } else {
        ("notify.on_failure", &notification.on_failure)
    };
    let Some((program, arguments)) = words.split_first() else { return };
    let mut command = Command::new(program);
    let folder = if recipe_folder.as_os_str().is_empty() { Path::new(".") } else { recipe_folder };
    command.args(arguments).current_dir(folder);
    command.env("SFT_RUN_NAME", &summary.name).env("SFT_RUN_STATE", summary.state.words());
    if let Some(folder) = run_folder {
        command.env("SFT_RUN_FOLDER", std::path::absolute(folder).unwrap_or_default());
    }
    if let Err(error) = run(command, summary) {
        let mark = terminal.paint_error(Paint::Yellow, "note:");
        terminal.error(&format!("{mark} {key} (`{}`): {error}", words.join(" ")));
    }
}

fn run(mut command: Command, summary: &Summary) -> io::Result<()> {
    let text = serde_json::to_vec(summary)?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    // Threads of their own: a program that reads nothing or says much must not hold up the wait.
    thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&text)));
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        let read = stderr.map(|stderr| stderr.take(4096).read_to_end(&mut said));
        drop(read);
        said
    });
    let Some(status) = wait(&mut child)? else {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::other(format!("ended after {} s", LONGEST.as_secs())));
    };
    if status.success() {
        return Ok(());
    }
    let said = said.join().unwrap_or_default();
    Err(io::Error::other(format!("{status} {}", String::from_utf8_lossy(&said).trim())))
}

fn wait(child: &mut Child) -> io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < LONGEST {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}
