//! Sweeps: what is tried, which go on, the journal, and the command with real trials.

use super::program::Desk;
use serde_json::{Value, json};
use sft_run::spec::recipe::sweep::{Mode, SamplerName};
use sft_run::sweep::driver::{Options, drive};
use sft_run::sweep::sampler::{self, Past, Point};
use sft_run::sweep::table::{AtWork, Table};
use sft_run::sweep::{
    Domain, Header, Journal, Launch, Line, Order, Outcome, Space, State, journal, trlx,
};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn space(overrides: &[&str]) -> Space {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Space::parse(&overrides).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn header(space: Space, sampler: SamplerName, trials: usize) -> Header {
    Header {
        version: journal::VERSION,
        name: "test".to_owned(),
        recipe: "recipe.yaml".into(),
        resolved: String::new(),
        space,
        sampler,
        trials,
        seed: 3,
        metric: "val_loss".to_owned(),
        small_is_best: true,
        asha: None,
        rungs: Vec::new(),
        lag: 2,
    }
}

#[test]
fn a_grid_is_hydras_and_zips_go_together() {
    let space =
        space(&["a=1,2", "b.c=range(0,3)", "fixed=x", "zip(d=choice(1,2),e=choice(x,'y,z'))"]);
    assert_eq!(space.fixed, ["fixed=x"]);
    assert_eq!(sampler::count(&space, SamplerName::Grid, 0), Ok(12));
    let trials: Vec<String> = (0..12)
        .map(|number| {
            let points = sampler::points(&space, SamplerName::Grid, 0, number, &[]);
            let values = sampler::typed(&space, &points).into_iter();
            values.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(trials[0], "a=1 b.c=0 d=1 e=x");
    assert_eq!(trials[1], "a=1 b.c=0 d=2 e='y,z'");
    assert_eq!(trials[2], "a=1 b.c=1 d=1 e=x");
    assert_eq!(trials[11], "a=2 b.c=2 d=2 e='y,z'");
    for wrong in [
        "zip(a=choice(1,2),b=choice(1))",
        "zip(a=1,b=choice(1))",
        "a=interval(2,1)",
        "a=tag(log,interval(0,1))",
    ] {
        assert!(Space::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
    }
    let interval = self::space(&["lr=tag(log,interval(1e-5,1e-3))"]);
    assert!(sampler::count(&interval, SamplerName::Grid, 0).unwrap_err().contains("--sampler"));
    let parameters = [
        ("model.seed".to_owned(), json!([1, 2])),
        ("name".to_owned(), json!(["a,b", "c"])),
        ("lr".to_owned(), json!("tag(log, interval(1e-5, 1e-3))")),
    ];
    let own = Space::of_parameters(&parameters).unwrap();
    assert_eq!(
        own.axes[0].domain,
        Domain::Choice(vec![vec!["1".to_owned()], vec!["2".to_owned()]])
    );
    assert_eq!(own.axes[2].domain, Domain::Float { low: 1e-5, high: 1e-3, log: true, step: None });
}

#[test]
fn trlxs_files_are_read_and_its_methods_refused() {
    let file = |value: Value| value.as_object().unwrap().clone().into_iter().collect::<Vec<_>>();
    let (space, settings) = trlx::read(&file(json!({
        "tune_config": {"mode": "max", "metric": "metrics/exact_match", "search_alg": "bohb", "scheduler": "hyperband", "num_samples": 32},
        "optimizer.kwargs.lr": {"strategy": "loguniform", "values": [1e-6, 1e-3]},
        "train.seed": {"strategy": "randint", "values": [0, 10]},
        "train.batch_size": {"strategy": "choice", "values": [4, 8]},
    }))).unwrap();
    assert_eq!((settings.sampler, settings.asha), (Some(SamplerName::Tpe), Some(3)));
    assert_eq!((settings.trials, settings.mode), (Some(32), Some(Mode::Max)));
    assert_eq!(settings.metric.as_deref(), Some("exact_match"));
    let names: Vec<_> = space.axes.iter().flat_map(sft_run::sweep::Axis::names).collect();
    assert_eq!(names, ["model.optim.lr", "model.global_batch_size", "model.seed"]);
    assert_eq!(space.axes[2].domain, Domain::Integer { low: 0, high: 9, log: false, step: None });
    let problems = trlx::read(&file(json!({
        "method.init_kl_coef": {"strategy": "loguniform", "values": [1e-4, 0.2]},
        "model.model_path": {"strategy": "choice", "values": [1]},
        "train.seed": {"strategy": "sobol", "values": [1]},
    })))
    .unwrap_err();
    let told: String = problems.iter().map(|problem| format!("{}; ", problem.message)).collect();
    assert!(
        told.contains("`method.init_kl_coef`") && told.contains("`model.model_path`"),
        "{told}"
    );
    assert!(
        told.contains("`sobol`") && problems.iter().all(|problem| problem.help.is_some()),
        "{told}"
    );
}

/// Two numbers and a choice with one good corner, as recorded from nothing but this line.
fn valley(points: &[Point]) -> f64 {
    let [Point::Float(rate), Point::Float(decay), Point::Choice(kind)] = points else {
        panic!("{points:?}")
    };
    (rate.log10() + 3.0).powi(2) + 4.0 * (decay - 0.3).powi(2) + [0.0, 0.4, 0.8][*kind]
}

fn search(sampler: SamplerName, seed: u64) -> (Vec<Vec<Point>>, f64) {
    let space = space(&["lr=tag(log,interval(1e-6,1e-1))", "wd=interval(0.0,1.0)", "kind=a,b,c"]);
    let mut past: Vec<Past> = Vec::new();
    for number in 0..30 {
        let points = sampler::points(&space, sampler, seed, number, &past);
        let cost = valley(&points);
        past.push(Past { points, cost });
    }
    let best = past.iter().map(|past| past.cost).fold(f64::INFINITY, f64::min);
    (past.into_iter().map(|past| past.points).collect(), best)
}

#[test]
fn the_estimator_beats_chance_and_repeats_itself() {
    let mut wins = 0;
    let (mut estimated, mut drawn) = (0.0, 0.0);
    for seed in 0..20 {
        let (trials, best) = search(SamplerName::Tpe, seed);
        assert_eq!(trials, search(SamplerName::Tpe, seed).0);
        let (_, chance) = search(SamplerName::Random, seed);
        wins += usize::from(best <= chance);
        estimated += best / 20.0;
        drawn += chance / 20.0;
    }
    assert!(wins > 10 && estimated < drawn, "{wins} of 20, {estimated} against {drawn}");
}

/// Trials that come to numbers at once, or after a while.
struct Pretend {
    /// Waits a time that depends on the trial, differently for each of these.
    jitter: u64,
    most: AtomicUsize,
    running: AtomicUsize,
    /// Trials that fail.
    failing: BTreeSet<usize>,
    /// The sweep is stopped after so many ends.
    stop_after: Option<usize>,
    stop: AtomicBool,
    ended: AtomicUsize,
    orders: Mutex<Vec<Order>>,
}

impl Pretend {
    fn new(jitter: u64) -> Pretend {
        Pretend {
            jitter,
            most: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            failing: BTreeSet::new(),
            stop_after: None,
            stop: AtomicBool::new(false),
            ended: AtomicUsize::new(0),
            orders: Mutex::new(Vec::new()),
        }
    }
}

impl Launch for Pretend {
    fn run(&self, order: &Order) -> Outcome {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.orders.lock().unwrap().push(order.clone());
        let wait = (order.trial as u64 + 1).wrapping_mul(self.jitter.wrapping_mul(7919)) % 9;
        std::thread::sleep(Duration::from_millis(wait));
        self.running.fetch_sub(1, Ordering::SeqCst);
        let ended = self.ended.fetch_add(1, Ordering::SeqCst) + 1;
        if self.stop_after.is_some_and(|most| ended >= most) {
            self.stop.store(true, Ordering::Relaxed);
            return Outcome::Interrupted;
        }
        if self.failing.contains(&order.trial) {
            return Outcome::Failed("it broke".to_owned());
        }
        let x: f64 = order.values[0].1.parse().unwrap();
        let loss = (x - 0.3).powi(2) + order.pause_at.map_or(0.0, |step| 1.0 / step as f64);
        if order.pause_at.is_some() {
            return Outcome::Paused(loss);
        }
        let numbers = BTreeMap::from([("val_loss".to_owned(), loss)]);
        Outcome::Done { numbers, seconds: wait as f64 }
    }

    fn told(&self, _: &State, _: &Line) {}
}

fn asha() -> Header {
    let header = header(space(&["x=interval(0.0,1.0)"]), SamplerName::Tpe, 24);
    Header { asha: Some(3), rungs: vec![10, 30], lag: 3, ..header }
}

/// Drives a sweep until it is done, stopped and resumed as `stops` say; its table and its journal.
fn driven(header: &Header, jitter: u64, stops: &[usize], parallel: usize) -> (String, Vec<Line>) {
    let folder = tempfile::tempdir().unwrap();
    Journal::create(folder.path(), header).unwrap();
    for stop in stops.iter().map(|stop| Some(*stop)).chain([None]) {
        let (again, lines) = journal::read(folder.path()).unwrap();
        assert_eq!(again, *header);
        let mut state = State::new(again, &lines);
        let mut journal = Journal::open(folder.path()).unwrap();
        let launch = Pretend { stop_after: stop, ..Pretend::new(jitter) };
        let options = Options { parallel, fail_fast: false, stop: &launch.stop };
        drive(&mut state, &mut journal, &launch, options).unwrap();
        assert!(launch.most.load(Ordering::SeqCst) <= parallel);
    }
    let (header, lines) = journal::read(folder.path()).unwrap();
    (Table::of(&State::new(header, &lines), &AtWork::default()).csv(), lines)
}

#[test]
fn halving_depends_on_no_timing_and_no_interruption() {
    let (table, lines) = driven(&asha(), 1, &[], 1);
    let stopped = lines.iter().filter(|line| matches!(line, Line::Stopped { .. })).count();
    let done = lines.iter().filter(|line| matches!(line, Line::Done { .. })).count();
    assert_eq!(stopped + done, 24);
    assert!((3..=14).contains(&done), "{done} of 24 ran to the end");
    for (jitter, stops, parallel) in [(2, &[][..], 3), (3, &[5, 11][..], 3), (4, &[1, 1, 1][..], 2)]
    {
        assert_eq!(driven(&asha(), jitter, stops, parallel).0, table, "{jitter}");
    }
}

#[test]
fn a_broken_trial_stops_the_others_only_when_asked() {
    let header = header(space(&["x=range(0,8)"]), SamplerName::Grid, 8);
    let run = |fail_fast| {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(folder.path(), &header).unwrap();
        let mut state = State::new(header.clone(), &[]);
        let launch = Pretend { failing: BTreeSet::from([1, 4]), ..Pretend::new(1) };
        let options = Options { parallel: 2, fail_fast, stop: &launch.stop };
        drive(&mut state, &mut journal, &launch, options).unwrap();
        let table = Table::of(&state, &AtWork::default());
        let count = |word: &str| table.rows.iter().filter(|row| row.state == word).count();
        (count("done"), count("failed"), count("open"))
    };
    assert_eq!(run(false), (6, 2, 0));
    let (done, failed, open) = run(true);
    assert!(failed >= 1 && open >= 3 && done + failed + open == 8, "{done} {failed} {open}");
}

#[test]
fn only_trials_that_a_process_holds_are_running() {
    let header = header(space(&["x=range(0,4)", "same=choice(5)"]), SamplerName::Grid, 4);
    let line =
        |trial| Line::Started { trial, points: vec![Point::Choice(trial), Point::Choice(0)] };
    let rung = Line::Rung { trial: 2, rung: 0, step: 10, value: 1.0 };
    let state = State::new(header, &[line(0), line(1), line(2), rung]);
    let words = |at_work: &AtWork| {
        let mut rows = Table::of(&state, at_work).rows;
        rows.sort_by_key(|row| row.trial);
        rows.iter().map(|row| row.state).collect::<Vec<_>>()
    };
    let all = AtWork { sweep: true, trials: BTreeSet::from([0]) };
    assert_eq!(words(&all), ["running", "waiting", "waiting", "open"]);
    let none = AtWork::default();
    assert_eq!(words(&none), ["interrupted", "interrupted", "interrupted", "open"]);
    let table = Table::of(&state, &none);
    assert_eq!(table.counts(), "0 of 4 trials done, 3 interrupted, 1 open");
    // The values of a grid are known before it begins.
    assert_eq!((table.keys.len(), &*table.rows[3].values["x"]), (1, "3"));
}

#[test]
fn a_line_that_was_not_written_whole_was_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let header = header(space(&["x=range(0,3)"]), SamplerName::Grid, 3);
    let mut journal = Journal::create(folder.path(), &header).unwrap();
    journal.append(&Line::Started { trial: 0, points: vec![Point::Choice(0)] }).unwrap();
    drop(journal);
    let path = folder.path().join(journal::FILE);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "{\"event\":\"done\",\"tri";
    sft_run::base::atomic_file::write(&path, text.as_bytes()).unwrap();
    let mut journal = Journal::open(folder.path()).unwrap();
    journal.append(&Line::Started { trial: 1, points: vec![Point::Choice(1)] }).unwrap();
    let (again, lines) = journal::read(folder.path()).unwrap();
    assert_eq!((again, lines.len()), (header, 2));
    let wrong = text.replacen("\"started\"", "\"begun\"", 1);
    sft_run::base::atomic_file::write(&path, wrong.as_bytes()).unwrap();
    assert!(journal::read(folder.path()).unwrap_err().to_string().contains("line 2"));
}

/// Eight trials of the tiny recipe.
const EIGHT: &[&str] = &[
    "sweep",
    "tiny.yaml",
    "model.optim.lr=1e-3,3e-3",
    "model.hidden_dropout=0.0,0.1",
    "model.optim.weight_decay=0.0,0.1",
    "trainer.max_steps=40",
    "trainer.val_check_interval=10",
    "--parallel",
    "2",
];

fn finished(desk: &Desk) -> usize {
    let text = std::fs::read_to_string(desk.path("sweeps/tiny/journal.jsonl")).unwrap_or_default();
    text.matches("\"event\":\"done\"").count()
}

fn start(desk: &Desk, more: &[&str]) -> Child {
    let words: Vec<&str> = EIGHT.iter().chain(more).copied().collect();
    desk.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn folders(desk: &Desk, kind: &str) -> usize {
    std::fs::read_dir(desk.path(&format!(".sft-run/cache/{kind}"))).unwrap().count()
}

/// Trials end soon after their sweep is killed, and are not said to run any more.
fn nobody_runs(desk: &Desk) {
    let began = Instant::now();
    loop {
        let shown = desk.run(&["sweep", "--show", "sweeps/tiny"], 0);
        // Trials that have not begun have their values, and so their keys a column.
        assert!(shown.contains("model.optim.weight_decay"), "{shown}");
        if !shown.contains("running") {
            assert!(shown.contains(" interrupted"), "{shown}");
            return;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_sweep_that_is_killed_twice_ends_with_the_same_table() {
    let undisturbed = Desk::new();
    undisturbed.run(EIGHT, 0);
    let table = undisturbed.run(&["sweep", "--show", "sweeps/tiny", "--csv"], 0);
    assert_eq!(table.lines().count(), 9, "{table}");
    // Rows are tokenized and cut into shards once.
    let made = ["tokenize", "shard", "train"].map(|kind| folders(&undisturbed, kind));
    assert_eq!(made, [1, 1, 8]);
    let page = undisturbed.text("sweeps/tiny/sweep.html");
    assert!(
        page.contains("8 of 8 trials done") && !page.contains("src=") && !page.contains("@import")
    );

    let killed = Desk::new();
    let mut words: Vec<&str> = Vec::new();
    for wanted in [2, 5] {
        let mut child = start(&killed, &words);
        let began = Instant::now();
        while finished(&killed) < wanted {
            assert!(began.elapsed() < Duration::from_mins(5), "no trial ends");
            assert_eq!(child.try_wait().unwrap(), None, "the sweep ended too early");
            std::thread::sleep(Duration::from_millis(5));
        }
        let shown = killed.run(&["sweep", "--show", "sweeps/tiny"], 0);
        let at_work = shown.contains(" running") || shown.contains(" waiting");
        assert!(at_work && !shown.contains("interrupted"), "{shown}");
        let second = killed.output(&[EIGHT, &["--resume"]].concat());
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(second.status.code() == Some(2) && told.contains("in use by process"), "{told}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(finished(&killed) < 8);
        nobody_runs(&killed);
        words = vec!["--resume"];
    }
    let resumed: Vec<&str> = EIGHT.iter().chain(&words).copied().collect();
    killed.run(&resumed, 0);
    assert_eq!(killed.run(&["sweep", "--show", "sweeps/tiny", "--csv"], 0), table);
    assert_eq!(["tokenize", "shard"].map(|kind| folders(&killed, kind)), [1, 1]);

    // A trial is the recipe run alone: the same steps, to the bit.
    let shown: Value =
        serde_json::from_str(&killed.run(&["sweep", "--show", "sweeps/tiny", "--json"], 0))
            .unwrap();
    let command = shown["command"].as_str().unwrap();
    let alone = Desk::new();
    let mut alone_words: Vec<String> = command.split(' ').skip(1).map(str::to_owned).collect();
    alone_words[0] = "tiny.yaml".to_owned();
    alone.run(&alone_words.iter().map(String::as_str).collect::<Vec<_>>(), 0);
    let trial = format!("sweeps/tiny/trials/{:04}/metrics.jsonl", shown["best"].as_u64().unwrap());
    assert_eq!(killed.numbers(&trial), alone.numbers("runs/tiny/metrics.jsonl"));
    // What another sweep left is not gone on with.
    let other = killed.output(&["sweep", "tiny.yaml", "model.seed=1,2", "--resume"]);
    assert_eq!(other.status.code(), Some(2));
    let other = killed.output(&[EIGHT, &["--resume", "--metric", "exact_match"]].concat());
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(told.contains("--metric was `val_loss`, now `exact_match`"), "{told}");
    assert!(!told.contains("small_is_best"), "{told}");
    assert_eq!(killed.output(EIGHT).status.code(), Some(2), "without --resume");
}

#[test]
fn pausing_at_rungs_changes_no_trial_that_goes_on() {
    let desk = Desk::new();
    let words = [
        "sweep",
        "tiny.yaml",
        "model.optim.lr=1e-2,1e-3,1e-4",
        "trainer.max_steps=27",
        "trainer.val_check_interval=3",
        "--asha",
        "3",
        "--parallel",
        "2",
    ];
    desk.run(&words, 0);
    let journal = desk.text("sweeps/tiny/journal.jsonl");
    assert!(
        journal.contains("\"event\":\"rung\"") && journal.contains("\"event\":\"done\""),
        "{journal}"
    );
    let shown: Value =
        serde_json::from_str(&desk.run(&["sweep", "--show", "sweeps/tiny", "--json"], 0)).unwrap();
    let best = shown["best"].as_u64().unwrap();
    let rate = shown["trials"][0]["values"]["model.optim.lr"].as_str().unwrap();
    let alone = Desk::new();
    let rate = format!("model.optim.lr={rate}");
    alone.run(&["tiny.yaml", &rate, "trainer.max_steps=27", "trainer.val_check_interval=3"], 0);
    let trial = format!("sweeps/tiny/trials/{best:04}/metrics.jsonl");
    assert_eq!(desk.numbers(&trial), alone.numbers("runs/tiny/metrics.jsonl"));
}

#[test]
fn mistakes_are_told_before_a_trial_starts() {
    let desk = Desk::new();
    let told = |words: &[&str]| {
        let output = desk.output(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words:?}\n{text}");
        assert!(!desk.path("sweeps").exists(), "{words:?}");
        text
    };
    assert!(told(&["sweep", "tiny.yaml"]).contains("nothing varies"));
    assert!(told(&["sweep", "tiny.yaml", "model.optim.lrr=1,2"]).contains("lrr"));
    assert!(
        told(&["sweep", "tiny.yaml", "model.optim.lr=interval(1e-4,1e-3)"]).contains("--sampler")
    );
    assert!(
        told(&["sweep", "tiny.yaml", "model.seed=1,2", "--metric", "evaluate.loss", "--asha", "3"])
            .contains("asha")
    );
    let seeds = ["sweep", "tiny.yaml", "model.seed=1,2", "--metric"];
    let typo = told(&[&seeds[..], &["evaluate.exact_mach"]].concat());
    assert!(typo.contains("did you mean `evaluate.exact_match`?"), "{typo}");
    let absent = told(&[&seeds[..], &["val_loss", "trainer.val_check_interval=0"]].concat());
    assert!(absent.contains("`train_loss`") && !absent.contains("`best_val_loss`"), "{absent}");
    for option in ["--trials", "--seed"] {
        let idle = told(&["sweep", "tiny.yaml", "model.seed=1,2", option, "1"]);
        let message = format!("{option} changes nothing where a grid tries every combination");
        assert!(idle.contains(&message) && idle.contains("help: add --sampler random"), "{idle}");
    }
    let own = told(&["sweep", "tiny.yaml", "model.seed=1,2", "++sweep.trials=1"]);
    assert!(own.contains("sweep.trials changes nothing"), "{own}");
    let absent = told(&["sweep", "--show", "sweeps/nope"]);
    assert!(absent.contains("there is no sweep in `sweeps/nope`"), "{absent}");
    assert!(absent.contains("help: name a sweep's folder"), "{absent}");
    assert!(told(&["sweep", "--show", "sweeps/nope", "--trials", "1"]).contains("cannot be used"));
    let added = told(&["sweep", "tiny.yaml", "model.ffn_dropout=0.0,0.1"]);
    assert!(added.contains("+model.ffn_dropout=0.0,0.1"), "{added}");
}
