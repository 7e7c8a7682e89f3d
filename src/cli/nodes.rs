//! Several nodes: where this process stands among them, by the environment of whoever started it.

use super::exit::Exit;
use super::failure::Failure;
use super::session::Session;
use super::signals;
use crate::base::numbers::counted;
use crate::recipe::CheckedRecipe;
use crate::stages::nodes::{Meeting, NodeFailure, Nodes, Place, follow, rendezvous};
use crate::stages::{self, Circumstances, devices};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

/// PyTorch's port, where `MASTER_PORT` names none.
const PORT: u16 = 29_500;
/// Longest wait for another node, where `SFT_RUN_NODE_TIMEOUT` says nothing: as long as PyTorch's.
const TIMEOUT: f64 = 1800.0;

/// Time in which a failed run ends by itself, a checkpoint under way being written.
const GRACE: Duration = Duration::from_mins(2);

/// Nodes and devices of each that the recipe asks for; one node with any number of devices is none.
fn wanted(checked: &CheckedRecipe) -> Result<Option<(usize, usize)>, Failure> {
    let trainers = checked.stages().iter().map(|stage| &stage.settings.trainer);
    let sizes =
        trainers.map(|trainer| (trainer.num_nodes.unwrap_or(1), trainer.devices.unwrap_or(1)));
    let (several, one): (BTreeSet<_>, BTreeSet<_>) = sizes.partition(|(nodes, _)| *nodes > 1);
    if several.len() > 1 {
        let shown: Vec<_> =
            several.iter().map(|(nodes, devices)| format!("{nodes} × {devices}")).collect();
        return Err(Failure::wrong(
            format!("stages of the recipe ask for different nodes × devices: {}", shown.join(", ")),
            "give all of them the same trainer.num_nodes and trainer.devices, or 1 node",
        ));
    }
    let wanted = several.into_iter().next();
    // Whose a stage is shows in its number of ranks.
    if let Some((nodes, devices)) = wanted.filter(|(nodes, each)| one.contains(&(1, nodes * each)))
    {
        let ranks = nodes * devices;
        return Err(Failure::wrong(
            format!(
                "stages of the recipe ask for {nodes} nodes × {devices}, and one for {ranks} devices \
                 of 1 node, as many ranks"
            ),
            "give the stage the trainer.num_nodes and trainer.devices of the others, or other devices",
        ));
    }
    Ok(wanted)
}

/// Refuses a recipe for several nodes where `command` works on one.
pub(super) fn refuse_several(checked: &CheckedRecipe, command: &str) -> Result<(), Failure> {
    let Some((nodes, devices)) = wanted(checked)? else { return Ok(()) };
    let ranks = nodes * devices;
    Err(Failure::wrong(
        format!(
            "`{command}` works on one node, and the recipe asks for {nodes} (trainer.num_nodes)"
        ),
        format!(
            "add trainer.num_nodes=1 trainer.devices={ranks} where one node has so many devices"
        ),
    ))
}

/// Who meets where for a run of the recipe, whose resolved text is `settings`; none on one node.
pub(super) fn meeting(
    session: &Session,
    checked: &CheckedRecipe,
    settings: String,
) -> Result<Option<Meeting>, Failure> {
    let variables = Variables(&session.environment);
    let wanted = wanted(checked)?;
    let step = variables.number(&["NNODES", "SLURM_STEP_NUM_NODES"])?;
    let started = match step {
        None if wanted.is_some() => variables.number(&["SLURM_NNODES"])?,
        step => step,
    };
    let nodes = wanted.map_or(1, |(nodes, _)| nodes);
    if let Some((name, started)) = started.filter(|(_, started)| *started != nodes) {
        return Err(Failure::wrong(
            format!(
                "the recipe asks for {} (trainer.num_nodes), and {name} is {started}",
                counted(nodes, "node")
            ),
            format!("set trainer.num_nodes={started}, or start it on as many nodes as it asks for"),
        ));
    }
    let Some((count, devices)) = wanted else { return Ok(None) };
    let node = variables.node(count)?;
    let (host, port) = variables.address(count)?;
    let gpus = if devices::built_for_gpus() { "with GPUs" } else { "for the CPU" };
    Ok(Some(Meeting {
        place: Place { node, count, devices },
        host,
        port,
        timeout: variables.timeout()?,
        build: format!("{} {gpus}", env!("CARGO_PKG_VERSION")),
        settings,
    }))
}

/// Environment variables, by name.
struct Variables<'a>(&'a BTreeMap<String, String>);

impl Variables<'_> {
    fn text(&self, names: &[&'static str]) -> Option<(&'static str, &str)> {
        let value = |name: &'static str| Some((name, self.0.get(name)?.trim()));
        names.iter().filter_map(|name| value(name)).find(|(_, value)| !value.is_empty())
    }

    fn number(&self, names: &[&'static str]) -> Result<Option<(&'static str, usize)>, Failure> {
        let Some((name, text)) = self.text(names) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some((name, number))),
            Err(_) => Err(wrong_variable(name, text, "a whole number")),
        }
    }

    /// This node's number.
    fn node(&self, count: usize) -> Result<usize, Failure> {
        let Some((name, node)) = self.number(&["NODE_RANK", "SLURM_NODEID"])? else {
            return Err(unknown_place(count, "which of them this is"));
        };
        if name == "SLURM_NODEID" && self.number(&["SLURM_LOCALID"])?.is_some_and(|(_, at)| at > 0)
        {
            return Err(Failure::wrong(
                "SLURM started several processes on this node (SLURM_LOCALID is not 0)",
                "start one per node, for all its devices: `srun --ntasks-per-node=1 …`",
            ));
        }
        if node >= count {
            return Err(wrong_variable(
                name,
                &node.to_string(),
                &format!("from 0 to {}", count - 1),
            ));
        }
        Ok(node)
    }

    /// Where node 0 waits.
    fn address(&self, count: usize) -> Result<(String, u16), Failure> {
        let lists = ["SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"];
        let named = self.text(&["MASTER_ADDR"]).map(|(_, host)| host.to_owned());
        let listed = || self.text(&lists).and_then(|(_, list)| first_host(list));
        let launched = || Some(self.text(&["SLURM_LAUNCH_NODE_IPADDR"])?.1.to_owned());
        let Some(host) = named.or_else(listed).or_else(launched) else {
            return Err(unknown_place(count, "where node 0 waits for the others"));
        };
        match self.text(&["MASTER_PORT"]) {
            None => Ok((host, PORT)),
            Some((name, text)) => match text.parse() {
                Ok(port) if port > 0 => Ok((host, port)),
                _ => Err(wrong_variable(name, text, "a port, from 1 to 65535")),
            },
        }
    }

    fn timeout(&self) -> Result<Duration, Failure> {
        let Some((name, text)) = self.text(&["SFT_RUN_NODE_TIMEOUT"]) else {
            return Ok(Duration::from_secs_f64(TIMEOUT));
        };
        let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
        let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        timeout.ok_or_else(|| wrong_variable(name, text, "seconds, more than 0"))
    }
}

fn wrong_variable(name: &str, text: &str, form: &str) -> Failure {
    Failure::wrong(format!("the environment variable {name} is `{text}`"), format!("it is {form}"))
}

fn unknown_place(count: usize, what: &str) -> Failure {
    Failure::wrong(
        format!("the recipe asks for {count} nodes (trainer.num_nodes), and nothing says {what}"),
        format!(
            "start it on each node with NNODES={count}, NODE_RANK from 0, MASTER_ADDR (the host of \
             node 0) and MASTER_PORT in the environment, or by `srun --nodes={count} \
             --ntasks-per-node=1`; on one node set trainer.num_nodes=1"
        ),
    )
}

/// The first host of SLURM's list, such as `gpu003` of `gpu[003-010,12],login`.
fn first_host(list: &str) -> Option<String> {
    let (mut host, mut letters) = (String::new(), list.chars());
    while let Some(letter) = letters.next() {
        match letter {
            ',' => break,
            '[' => {
                let range: String = letters.by_ref().take_while(|letter| *letter != ']').collect();
                host.extend(range.chars().take_while(|letter| !"-,".contains(*letter)));
            }
            letter => host.push(letter),
        }
    }
    Some(host).filter(|host| !host.is_empty())
}

/// Meets the other nodes; does `work` on node 0 and takes part in it on the others.
pub(super) fn together<T>(
    session: &Session,
    meeting: &Meeting,
    work: impl FnOnce(Arc<Nodes>) -> Result<T, Failure>,
    done: T,
) -> Result<T, Failure> {
    let Meeting { place: Place { node, count, .. }, host, port, .. } = meeting;
    let say = |text: &str| {
        if !session.terminal.quiet {
            session.terminal.line(&format!("node {node} of {count}: {text}"));
        }
    };
    say(&match node {
        0 => format!("waiting for the others at {host}:{port}"),
        _ => format!("calling node 0 at {host}:{port}"),
    });
    let stop = signals::stop_flag().map_err(|error| Failure::failed(&error))?;
    let nodes = meeting.join(&stop).map_err(|error| not_met(&error))?;
    say("all nodes are here");
    end_in_time(session, &nodes)?;
    let result = match node {
        0 => work(nodes.clone()),
        _ => take_part(&nodes, &say, &stop).map(|()| done),
    };
    match &result {
        Err(failure @ Failure::BrokenOff { .. }) => nodes.break_off(failure.message()),
        Err(failure) => nodes.fail(failure.message()),
        Ok(_) => {}
    }
    nodes.close();
    result
}

/// Sees to it that the process ends when the run has failed, even where a device or a file system
/// does not give a rank back.
fn end_in_time(session: &Session, nodes: &Arc<Nodes>) -> Result<(), Failure> {
    const LOOK: Duration = Duration::from_secs(1);
    let (terminal, nodes) = (session.terminal, Arc::downgrade(nodes));
    let watch = move || {
        while let Some(nodes) = nodes.upgrade() {
            let failure = nodes.failure();
            drop(nodes);
            let Some(failure) = failure else {
                thread::sleep(LOOK);
                continue;
            };
            thread::sleep(GRACE);
            ended(&failure).show(&terminal);
            end(Exit::Failed);
        }
    };
    let watch = thread::Builder::new().name("end in time".to_owned()).spawn(watch);
    watch.map(|_| ()).map_err(|error| Failure::failed(&error))
}

#[expect(clippy::exit, reason = "ranks that do not come back cannot be waited for")]
fn end(exit: Exit) {
    std::process::exit(exit.code().into());
}

fn take_part(nodes: &Arc<Nodes>, say: &dyn Fn(&str), stop: &AtomicBool) -> Result<(), Failure> {
    let circumstances = Circumstances { nodes: Some(nodes.clone()), ..Circumstances::default() };
    match follow(&circumstances, say, stop) {
        Ok(()) => Ok(()),
        Err(error @ stages::Error::Stopped(_)) => Err(Failure::Interrupted(error.to_string())),
        // What ended all of them came first.
        Err(error) => Err(match nodes.failure() {
            Some(failure) if failure.node != nodes.place().node => ended(&failure),
            _ => Failure::failed(&error),
        }),
    }
}

/// What has ended the run on all nodes.
fn ended(failure: &NodeFailure) -> Failure {
    if failure.is_accident {
        let help = "start the same command again on every node".to_owned();
        return Failure::BrokenOff { message: failure.to_string(), help };
    }
    Failure::failed(failure)
}

fn not_met(error: &rendezvous::Error) -> Failure {
    let help = match error {
        rendezvous::Error::Unlike(_) => "start the same command of the same build on every node",
        rendezvous::Error::Listen { .. } => {
            "MASTER_ADDR is to be an address of node 0 (where NODE_RANK is 0), and MASTER_PORT free"
        }
        rendezvous::Error::Stopped => return Failure::Interrupted(error.to_string()),
        _ => return Failure::failed(error),
    };
    let cause =
        std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    Failure::wrong(format!("{error}{cause}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_a_list() {
        for (list, host) in [
            ("gpu003", "gpu003"),
            ("gpu[003-010,12],login", "gpu003"),
            ("a,b", "a"),
            ("rack[2,4]-n[07-09].cluster", "rack2-n07.cluster"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(host), "{list}");
        }
        assert_eq!(first_host(""), None);
    }

    #[test]
    fn a_place_is_read_from_the_usual_variables_or_slurms() {
        let variables = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let own = variables(&[
            ("NODE_RANK", "1"),
            ("MASTER_ADDR", "10.0.0.1"),
            ("MASTER_PORT", "1234"),
            ("SLURM_NODEID", "0"),
            ("SLURM_NODELIST", "n[1-2]"),
        ]);
        let own = Variables(&own);
        assert_eq!(own.node(2).unwrap(), 1);
        assert_eq!(own.address(2).unwrap(), ("10.0.0.1".to_owned(), 1234));
        let slurm = variables(&[("SLURM_NODEID", "1"), ("SLURM_NODELIST", "n[1-2]")]);
        let slurm = Variables(&slurm);
        assert_eq!(slurm.node(2).unwrap(), 1);
        assert_eq!(slurm.address(2).unwrap(), ("n1".to_owned(), PORT));
        assert_eq!(slurm.timeout().unwrap(), Duration::from_mins(30));
        for (name, value, told) in [
            ("NODE_RANK", "2", "from 0 to 1"),
            ("NODE_RANK", "one", "a whole number"),
            ("SLURM_LOCALID", "3", "--ntasks-per-node=1"),
        ] {
            let wrong = variables(&[("SLURM_NODEID", "0"), (name, value)]);
            let Failure::Wrong { help, .. } = Variables(&wrong).node(2).unwrap_err() else {
                panic!()
            };
            assert!(help.unwrap().contains(told), "{name}={value}");
        }
        let wrong = variables(&[("MASTER_ADDR", "a"), ("MASTER_PORT", "0")]);
        assert!(Variables(&wrong).address(2).is_err());
    }
}
