//! Where results go that a person named: files, links, devices, a full disk.

use super::{Desk, text};
use std::fs::{self, File};
use std::os::unix::fs::symlink;

/// What the program says on stderr when it ends with `code`.
fn complaint(desk: &Desk, words: &[&str], code: i32) -> String {
    let output = desk.output(words);
    assert_eq!(output.status.code(), Some(code), "{words:?}\n{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure_and_a_closed_pipe_is_none() {
    let desk = Desk::new();
    let mut command = desk.command(&["schema"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("stdout could not be written"));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(desk.command(&["schema"]).stdout(writer).status().unwrap().code(), Some(0));
}

#[test]
fn the_cache_of_a_recipe_that_is_not_there_stays() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q", "--to", "tokenize"], 0);
    fs::remove_file(desk.path("tiny.lock")).ok();
    assert!(complaint(&desk, &["gc", "tyni.yaml"], 2).contains("there is no `tyni.yaml`"));
    let kept = desk.run(&["gc", "tiny.yaml", "--dry-run", "--json"], 0);
    assert!(kept.contains("tokenize/"), "{kept}");
}

#[test]
fn texts_and_conversions_go_where_they_were_sent() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q"], 0);
    fs::write(desk.path("texts.jsonl"), "old").unwrap();
    symlink("texts.jsonl", desk.path("link.jsonl")).unwrap();
    let model = ["generate", "runs/tiny", "--prompt", "define river:", "--max-length", "4"];
    desk.run(&[&model[..], &["-o", "link.jsonl", "--logprob"]].concat(), 0);
    assert!(desk.path("link.jsonl").is_symlink());
    assert!(desk.text("texts.jsonl").contains("define river:"));

    let idle = complaint(&desk, &[&model[..], &["--top-k", "5"]].concat(), 2);
    assert!(idle.contains("--top-k changes nothing") && idle.contains("--temperature"), "{idle}");
    let nowhere = complaint(&desk, &[&model[..], &["--logprob"]].concat(), 2);
    assert!(nowhere.contains("--output FILE or --json"), "{nowhere}");
    let cold = complaint(&desk, &[&model[..], &["--temperature", "-1"]].concat(), 2);
    assert!(cold.contains("must be above 0"), "{cold}");
    let absent = complaint(&desk, &["generate", "runs/tiny", "--prompts", "nofile.jsonl"], 2);
    assert!(absent.contains("`nofile.jsonl`") && absent.contains("help: "), "{absent}");
    fs::write(desk.path("prompts.jsonl"), "\n").unwrap();
    let empty = complaint(&desk, &["generate", "runs/tiny", "--prompts", "prompts.jsonl"], 2);
    assert!(empty.contains("`prompts.jsonl` holds no prompt"), "{empty}");
    for more in [&["--chat"][..], &model[2..]] {
        let cut = complaint(&desk, &[&model[..2], &["--tp", "3"], more].concat(), 2);
        assert!(cut.contains("cannot be shared by 3 tensor ranks"), "{cut}");
        assert!(cut.contains("help: any layout reads any checkpoint"), "{cut}");
    }
    let silent = complaint(&desk, &["generate", "runs/tiny"], 2);
    assert!(silent.contains("stdin holds no prompt"), "{silent}");

    desk.run(&["convert", "runs/tiny", "out", "--to", "hf"], 0);
    assert!(desk.path("out/config.json").is_file(), "a run is the checkpoint of its last training");
}
