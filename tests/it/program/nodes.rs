//! Several nodes: processes of the binary that meet on this machine.

use super::{Desk, VALIDATE, text};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where node 0 waits.
struct Meeting {
    port: String,
    timeout: &'static str,
    by_slurm: bool,
}

impl Meeting {
    fn new(timeout: &'static str) -> Meeting {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        Meeting { port, timeout, by_slurm: false }
    }

    fn command(&self, desk: &Desk, node: usize, words: &[&str]) -> Command {
        let mut command = desk.command(&[&["tiny.yaml", "trainer.num_nodes=2"], words].concat());
        let [nodes, number, host] = if self.by_slurm {
            ["SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_STEP_NODELIST"]
        } else {
            ["NNODES", "NODE_RANK", "MASTER_ADDR"]
        };
        command.env(nodes, "2").env(number, node.to_string()).env(host, "localhost");
        command.env("MASTER_PORT", &self.port).env("SFT_RUN_NODE_TIMEOUT", self.timeout);
        command
    }

    fn start(&self, desk: &Desk, node: usize, words: &[&str]) -> Child {
        let mut command = self.command(desk, node, words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// What a node wrote, which must end by itself with exit code `code`, soon.
fn ended(child: Child, code: i32) -> String {
    let mut child = child;
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_mins(1) {
            child.kill().unwrap();
            panic!("a node hangs: {}", text(&child.wait_with_output().unwrap().stderr));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

/// Runs two nodes, which must end with `code`; what each wrote.
fn both(desk: &Desk, timeout: &'static str, words: [&[&str]; 2], code: i32) -> [String; 2] {
    meet(&Meeting::new(timeout), desk, words, code)
}

fn meet(meeting: &Meeting, desk: &Desk, words: [&[&str]; 2], code: i32) -> [String; 2] {
    let second = meeting.start(desk, 1, words[1]);
    let first = meeting.start(desk, 0, words[0]);
    [ended(first, code), ended(second, code)]
}

fn signal(node: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &node.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

const METRICS: &str = "runs/tiny/metrics.jsonl";
const SAMPLES: &str = "runs/tiny/samples.jsonl";
const EVENTS: &str = "runs/tiny/events.jsonl";
const GENERATION_BEGAN: &str = r#""event":"stage_started","stage":"generate""#;

/// The files of the trained checkpoint.
fn checkpoint(desk: &Desk) -> Vec<(String, Vec<u8>)> {
    let folder = desk.path("runs/tiny/checkpoints/train/checkpoint");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn two_nodes_give_the_bits_of_one_process_with_as_many_devices() {
    let desk = Desk::new();
    let pipeline = "model.pipeline_model_parallel_size=2";
    let layouts: [(&str, &str, &[&str]); 4] = [
        ("trainer.devices=2", "trainer.devices=1", &[VALIDATE]),
        (
            "trainer.devices=4",
            "trainer.devices=2",
            &["model.tensor_model_parallel_size=2", "+model.sequence_parallel=true"],
        ),
        ("trainer.devices=4", "trainer.devices=2", &[pipeline, "model.micro_batch_size=1"]),
        ("trainer.devices=2", "trainer.devices=1", &["model.tensor_model_parallel_size=2"]),
    ];
    for (one, several, layout) in layouts {
        desk.run(&[&["tiny.yaml", one], layout, &["--no-cache"]].concat(), 0);
        let expected = (desk.numbers(METRICS), checkpoint(&desk), desk.text(SAMPLES));
        let words = [&[several], layout, &["--no-cache"]].concat();
        let meeting = Meeting { by_slurm: layout[0] == pipeline, ..Meeting::new("60") };
        let [_, second] = meet(&meeting, &desk, [&words, &words], 0);
        assert_eq!(desk.numbers(METRICS), expected.0, "{layout:?}");
        assert!(checkpoint(&desk) == expected.1, "{layout:?}: other bits");
        // Both read text with the trained model.
        assert_eq!(desk.text(SAMPLES), expected.2, "{layout:?}");
        assert!(desk.states().iter().all(|(_, state)| state == "run"), "{:?}", desk.states());
        let done = ["trained", "evaluated", "generated"];
        assert!(done.iter().all(|done| second.contains(done)), "{layout:?}: {second}");
    }
}

#[test]
fn a_node_that_is_killed_ends_the_other_and_the_run_goes_on_where_it_was() {
    let desk = Desk::new();
    let words = ["trainer.max_steps=60", "trainer.val_check_interval=20", "--to", "train"];
    desk.run(&[&["tiny.yaml", "trainer.devices=2"], &words[..]].concat(), 0);
    let expected = (desk.numbers(METRICS), checkpoint(&desk));
    std::fs::remove_file(desk.path(METRICS)).unwrap();
    for (killed, at) in [(Some(1), 12), (Some(0), 30), (None, 45)] {
        remove_trained(&desk);
        let meeting = Meeting::new("60");
        let [first, second] = [0, 1].map(|node| meeting.start(&desk, node, &words));
        let start = Instant::now();
        while desk.lines_of_metrics() < at {
            assert!(start.elapsed() < Duration::from_mins(1), "training does not begin");
            std::thread::sleep(Duration::from_millis(2));
        }
        let Some(killed) = killed else {
            // A signal to one of them is heard by both: they save and stop.
            signal(&second, "-INT");
            for told in [ended(first, 1), ended(second, 1)] {
                assert!(told.contains("interrupted"), "{told}");
            }
            continue;
        };
        let (mut victim, other) = if killed == 1 { (second, first) } else { (first, second) };
        victim.kill().unwrap();
        victim.wait().unwrap();
        let since = Instant::now();
        let told = ended(other, 1);
        assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());
        let lost = format!("node {killed}: it is lost, and with it rank {killed} of 2");
        assert!(told.contains(&lost), "{told}");
        let help = ["on every node", "to continue it"][killed];
        assert!(told.contains(&format!("help: start the same command again {help}")), "{told}");
    }
    both(&desk, "60", [&words, &words], 0);
    assert_eq!(desk.text(EVENTS).matches("\"resumed\"").count(), 3);
    assert_eq!(desk.numbers(METRICS), expected.0);
    assert!(checkpoint(&desk) == expected.1, "other bits");
}

#[test]
fn a_node_that_is_killed_while_text_is_generated_ends_the_other() {
    let desk = Desk::new();
    let prompts = vec!["\"oak:\""; 4000].join(",");
    let prompts = format!("stages.generate.generate.prompts=[{prompts}]");
    let long = "+stages.generate.generate.gen_kwargs.min_length=50";
    let limit = "stages.generate.generate.gen_kwargs.max_length=50";
    for layout in ["model.tensor_model_parallel_size=1", "model.tensor_model_parallel_size=2"] {
        both(&desk, "60", [&[layout, "--to", "evaluate"]; 2], 0);
        for killed in [1, 0] {
            let meeting = Meeting::new("60");
            let words = [layout, &prompts, long, limit];
            let nodes = [0, 1].map(|node| meeting.start(&desk, node, &words));
            let start = Instant::now();
            let events = || std::fs::read_to_string(desk.path(EVENTS)).unwrap_or_default();
            while !events().contains(GENERATION_BEGAN) {
                assert!(start.elapsed() < Duration::from_mins(1), "generation does not begin");
                std::thread::sleep(Duration::from_millis(2));
            }
            let [first, second] = nodes;
            let (mut victim, other) = if killed == 1 { (second, first) } else { (first, second) };
            victim.kill().unwrap();
            victim.wait().unwrap();
            let told = ended(other, 1);
            assert!(told.contains(&format!("node {killed}: it is lost")), "{layout}: {told}");
            let help = ["on every node", "to run it anew"][killed];
            assert!(told.contains(&format!("start the same command again {help}")), "{told}");
            std::fs::remove_file(desk.path(EVENTS)).unwrap();
        }
    }
}

/// Removes what the cache has of trainings that came to their end.
fn remove_trained(desk: &Desk) {
    let folder = desk.path(".sft-run/cache/train");
    if folder.exists() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_rank_that_fails_or_a_node_that_hangs_ends_all_nodes() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "--to", "load"], 0);
    let words = ["--inject-fault", "1:3:error"];
    let told = both(&desk, "60", [&words, &words], 1);
    for told in told {
        assert!(told.contains("rank 1 of 2 failed (data 1)"), "{told}");
        assert!(told.contains("rank 1 was asked to fail in step 3"), "{told}");
        assert!(!told.contains("given up"), "{told}");
        assert!(!told.contains("help: "), "an error comes again: {told}");
    }
    let meeting = Meeting::new("4");
    let words = ["trainer.max_steps=100000", "trainer.val_check_interval=0"];
    let [first, second] = [0, 1].map(|node| meeting.start(&desk, node, &words));
    let start = Instant::now();
    while desk.lines_of_metrics() < 5 {
        assert!(start.elapsed() < Duration::from_mins(1), "training does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&second, "-STOP");
    let told = ended(first, 1);
    assert!(told.contains("node 1: it is lost") && told.contains("nothing was heard"), "{told}");
    // It hears of that, or finds before that it has stood still.
    signal(&second, "-CONT");
    let told = ended(second, 1);
    assert!(told.contains("failed: node 1: "), "{told}");
}

#[test]
fn nodes_that_do_not_come_or_do_something_else_are_named() {
    let desk = Desk::new();
    let meeting = Meeting::new("0.3");
    let told = ended(meeting.start(&desk, 0, &[]), 1);
    assert!(told.contains("node 1 did not come to localhost:"), "{told}");
    let told = ended(meeting.start(&desk, 1, &[]), 1);
    assert!(told.contains("node 0 does not answer at localhost:"), "{told}");

    let told = both(&desk, "60", [&[], &["model.optim.lr=2e-3"]], 2);
    for told in told {
        assert!(told.contains("node 1 has another recipe than node 0"), "{told}");
        assert!(told.contains("0.001") && told.contains("0.002"), "{told}");
    }

    let refused = |names: &[(&str, &str)], words: &[&str]| {
        let mut command = desk.command(&[&["run", "tiny.yaml"], words].concat());
        let output = command.envs(names.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    let two = "trainer.num_nodes=2";
    let told = refused(&[("NNODES", "3"), ("NODE_RANK", "0")], &[two]);
    assert!(told.contains("asks for 2 nodes") && told.contains("NNODES is 3"), "{told}");
    assert!(refused(&[("NNODES", "2")], &[]).contains("asks for 1 node ("));
    let told = refused(&[], &[two]);
    assert!(told.contains("NODE_RANK") && told.contains("MASTER_ADDR"), "{told}");
    let told = refused(&[("NODE_RANK", "1")], &[two]);
    assert!(told.contains("where node 0 waits for the others"), "{told}");
    let told = text(&desk.output(&["bench", "tiny.yaml", two]).stderr);
    assert!(told.contains("`bench` works on one node"), "{told}");
    let one = "+stages.train.train.with={trainer: {num_nodes: 1,devices: 2}}";
    let told = refused(&[("NODE_RANK", "0")], &[two, one]);
    assert!(told.contains("2 nodes × 1, and one for 2 devices of 1 node"), "{told}");
}
