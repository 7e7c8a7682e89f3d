//! Conversations from outside: learned with the recipe's template, and held with it.

use super::{Desk, text};
use sft_run::base::atomic_file;
use std::io::Write as _;
use std::process::Stdio;

/// Turns in brackets: neither the tokenizer's folder nor any other file has such a template.
const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'user' %}[Q]{{ m.content }}[/Q]\
     {% else %}{{ m.content }}[/A]{% endif %}{% endfor %}";

/// The tiny recipe's settings over two conversations, learned by heart.
fn talking(of_tokenizer: &str, of_task: &str) -> Desk {
    let desk = Desk::new();
    let turns = |said: &str, answer: &str| {
        let turns = serde_json::json!([
            {"role": "user", "content": said}, {"role": "assistant", "content": answer}
        ]);
        format!("{}\n", serde_json::json!({ "messages": turns }))
    };
    let rows = [turns("oak", "a tree"), turns("fox", "an animal")].concat().repeat(16);
    atomic_file::write(&desk.path("talks.jsonl"), rows.as_bytes()).unwrap();
    let recipe = desk.text("tiny.yaml");
    let (settings, _) = recipe.split_once("\nstages:").unwrap();
    let settings = settings.replace(
        "type: tokenizer.json}",
        &format!("type: tokenizer.json, chat_template: {of_tokenizer}}}"),
    );
    let stages = format!(
        "stages:
  tokenize:
    tokenize:
      sources: [{{rows: talks.jsonl, tasks: [{{name: chat, chat_template: {of_task}}}]}}]
  shard: {{shard: {{data: tokenize, packing: true}}}}
  load: {{load: {{}}}}
  train: {{train: {{data: shard, model: load}}}}
"
    );
    let recipe = format!("{settings}\n{stages}");
    atomic_file::write(&desk.path("tiny.yaml"), recipe.as_bytes()).unwrap();
    desk
}

/// What the program answers when one line is said.
fn answer(desk: &Desk, model: &str, said: &str) -> String {
    let mut command = desk.command(&["generate", model, "--chat", "--max-length", "30"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{said}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_model_talks_through_the_template_of_its_recipe() {
    let quoted = format!("\"{TEMPLATE}\"");
    let desk = talking("null", &quoted);
    let learn = ["model.hidden_dropout=0.0", "model.optim.lr=1e-2", "trainer.max_steps=120"];
    let words = ["tiny.yaml", "-q", "trainer.val_check_interval=0"];
    desk.run(&[&words[..], &learn].concat(), 0);
    assert_eq!(answer(&desk, "runs/tiny", "oak"), "a tree\n");
    assert_eq!(answer(&desk, "runs/tiny", "fox"), "an animal\n");
    // The template goes along into checkpoints of every form that has a place for it.
    for to in ["hf", "native"] {
        desk.run(&["convert", "runs/tiny/checkpoints/train", to, "--to", to], 0);
        assert_eq!(answer(&desk, to, "oak"), "a tree\n");
    }
}

#[test]
fn the_recipes_template_stands_for_the_tokenizers() {
    let quoted = format!("\"{TEMPLATE}\"");
    let desk = talking(&quoted, "tokenizer");
    let shown = desk.run(&["preview", "tiny.yaml"], 0);
    assert!(shown.contains("[|/|Q|]|«a»|"), "the answer begins behind the question: {shown}");
    desk.run(&["tiny.yaml", "-q", "trainer.max_steps=2", "trainer.val_check_interval=0"], 0);
    // Two steps teach nothing; that an answer comes shows that there is a template.
    assert!(!answer(&desk, "runs/tiny", "oak").is_empty());
    let without = talking("null", "tokenizer");
    let refused = without.output(&["preview", "tiny.yaml"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("the tokenizer has none"), "{told}");
}

#[test]
fn a_model_without_a_template_says_where_one_comes_from() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q", "--to", "train", "trainer.max_steps=2"], 0);
    let refused = desk.output(&["generate", "runs/tiny", "--chat"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("model.tokenizer.chat_template"), "{told}");
}

/// The example of the README, whose `name`, `trainer` and `model` are those of another recipe.
#[test]
fn the_example_of_the_readme_trains_and_evaluates() {
    let desk = talking("null", "tokenizer");
    let readme = include_str!("../../../README.md");
    let examples = readme.split("```yaml\n").filter_map(|rest| rest.split("```").next());
    let example = examples.into_iter().find(|example| example.contains("my_talks.jsonl")).unwrap();
    let recipe = desk.text("tiny.yaml");
    let (settings, _) = recipe.split_once("\nstages:").unwrap();
    let recipe = format!("{settings}\n{}", example.replace("data/my_talks", "talks"));
    atomic_file::write(&desk.path("tiny.yaml"), recipe.as_bytes()).unwrap();
    // Of few conversations small shares would have none.
    let shares =
        "stages.tokenize.tokenize.sources.0.split={by: messages, validation: 0.2, test: 0.3}";
    let rows: String = (0..40)
        .map(|number| {
            let turns = serde_json::json!([
                {"role": "user", "content": format!("oak {number}")},
                {"role": "assistant", "content": "a tree"}
            ]);
            format!("{}\n", serde_json::json!({ "messages": turns }))
        })
        .collect();
    atomic_file::write(&desk.path("talks.jsonl"), rows.as_bytes()).unwrap();
    desk.run(&["tiny.yaml", "-q", shares], 0);
    let summary = desk.json("runs/tiny/summary.json");
    let stages = summary["stages"].as_array().unwrap();
    assert!(stages.iter().any(|stage| stage["metrics"]["rouge_l"].is_number()), "{summary}");
}
