//! Every problem says where it is and what to do.

use super::Case;
use serde_json::json;

/// Compares the problems of a recipe with lines.
fn check(text: &str, overrides: &[&str], expected: &[&str]) {
    let found = Case::new(text).overrides(overrides).problems();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn of_yaml() {
    check(
        "a: 1\nb:\n  c: 1\n  c: 2\na: 3\nd: =\n",
        &[],
        &[
            "yaml::duplicate_key recipe.yaml:4:3 `c` (again): the key `c` is here twice; first here \
             recipe.yaml:3:3; help: keep one of them; the first is on line 3",
            "yaml::duplicate_key recipe.yaml:5:1 `a` (again): the key `a` is here twice; first here \
             recipe.yaml:1:1; help: keep one of them; the first is on line 1",
            "yaml::scalar recipe.yaml:6:4 `=` (this value): a bare `=` has no value in YAML 1.1; \
             help: put it in quotes if it is a text",
        ],
    );
    let trap = |text: &str, help: &str| {
        let problem = Case::new(text).problems();
        assert!(problem.contains("recipe.yaml:2:") && problem.contains(help), "{problem}");
    };
    trap("x: 1\na: ${multiply: 4, 5}\n", "put the whole value in quotes");
    trap("x: 1\nk: {a: ${x}}\n", "put the whole value in quotes");
    trap("x: 1\na: {{ x }}\n", "YAML reads `{{` as a mapping");
    trap("x: 1\na: !custom 5\n", "tags known");
    trap("{\"a\": 1}\n{\"a\": 2}\n", "this looks like rows (JSONL), not like a recipe");
}

#[test]
fn of_interpolations() {
    check(
        "model:\n  hidden_size: 4\n  größe: x\n  ffn: a ${model.hiden_size} b\n  mp: ${multiply:${.tp},${.hidden_size}}\n  tp: null\n",
        &[],
        &[
            "interpolation::not_found recipe.yaml:4:10 `${model.hiden_size}` (in this interpolation): \
             `${model.hiden_size}` leads nowhere: `model` has no `hiden_size`; help: did you mean \
             `hidden_size`?",
            "interpolation::arguments recipe.yaml:5:7 `${multiply:${.tp},${.hidden_size}}` (in this \
             interpolation): `multiply` cannot work with null and 4; null comes from here \
             recipe.yaml:6:7; 4 comes from here recipe.yaml:2:16",
        ],
    );
    check(
        "a: ${b}\nb: ${c.d}\nc: {d: '${a}'}\n",
        &[],
        &[
            "interpolation::cycle recipe.yaml:1:4 `${b}` (needs its own value): interpolations go in \
             a circle: a → b → c.d → a; on the way recipe.yaml:2:4; on the way recipe.yaml:3:8; help: \
             give one of them a value of its own",
        ],
    );
    check(
        "a: ${multipl:1,2}\nb: ${now:%Y}\nc: ${multiply:1}\nd: ${oc.env:NOPE}\n",
        &[],
        &[
            "interpolation::unknown_function recipe.yaml:1:4 `${multipl:1,2}` (in this interpolation): \
             there is no function `multipl`; help: did you mean `multiply`?",
            "interpolation::unknown_function recipe.yaml:2:4 `${now:%Y}` (in this interpolation): there \
             is no function `now`; help: a recipe does not read the clock, so that it means the same \
             tomorrow; use ${{ vars.x }} with --var x=…",
            "interpolation::arguments recipe.yaml:3:4 `${multiply:1}` (in this interpolation): \
             `multiply` takes 2 arguments and got 1",
            "interpolation::environment recipe.yaml:4:4 `${oc.env:NOPE}` (in this interpolation): the \
             environment variable `NOPE` is not set; help: set it, or give a default: \
             ${oc.env:NOPE,default}",
        ],
    );
}

#[test]
fn of_missing_values_all_at_once() {
    check(
        "a: ???\nm:\n  b: ???\n  c: ${a}\n",
        &[],
        &[
            "recipe::missing_value recipe.yaml:1:4 `???` (`???` must be set): 2 required values are \
           missing: a (line 1), m.b (line 3); and this recipe.yaml:3:6; help: set it in the recipe, or \
           on the command line: a=VALUE",
        ],
    );
}

#[test]
fn of_overrides() {
    check(
        "model:\n  optim: {lr: 1}\n  betas: [1, 2]\n",
        &[
            "model.optim.lrr=1e-4",
            "model.betas.7=1",
            "model.betas[0]=1",
            "name=a,b",
            "+model.optim.lr=2",
            "~model.optim.lr=3",
            "model.optim={l:1}",
            "vars.x=1",
            "model.betas+=3",
        ],
        &[
            "override::unknown_key override 1:1:1 `model.optim.lrr` (not in the recipe): \
             `model.optim.lrr` is not in the recipe; help: did you mean `lr`?",
            "override::unknown_key override 2:1:1 `model.betas.7` (not in the recipe): \
             `model.betas.7`: the list has 2 items, counted from 0; help: replace the list: \
             key=[item,item]; add to it: key+=[item]",
            "override::syntax override 3:1:12 `[` (here): cannot read the override \
             `model.betas[0]=1`: `[` cannot stand in a key; help: an item of a list is written \
             with a dot: betas.0=0.8",
            "override::ambiguous override 4:1:6 `a,b` (several values): `name=a,b` holds several \
             values and could mean three things; help: a list: name=[a,b]; a text: \
             'name=\"a,b\"'; to try each: sft-run sweep RECIPE name=a,b",
            "override::exists override 5:1:2 `model.optim.lr` (this key): `model.optim.lr` is in \
             the recipe already; here recipe.yaml:2:15; help: to change it: model.optim.lr=2; to \
             add or change: ++model.optim.lr=2",
            "override::delete override 6:1:2 `model.optim.lr` (this key): the value of \
             `model.optim.lr` is 1 and not 3; this value recipe.yaml:2:15",
            "override::unknown_key override 7:1:1 `model.optim` (not in the recipe): \
             `model.optim.l` is not in the recipe; help: did you mean `lr`?",
            "override::vars override 8:1:1 `vars.x` (this key): `vars` are used before overrides \
             are applied; help: set a variable with --var name=value",
            "override::append override 9:1:1 `model.betas` (this key): `model.betas+=` adds the \
             items of a list to a list; help: write model.betas+=[item]",
        ],
    );
}

#[test]
fn only_keys_that_the_schema_knows_are_offered_to_be_added() {
    let help = |text: &str| {
        let told =
            Case::new("model: {optim: {lr: 1}, hidden_size: 8}\n").overrides(&[text]).problems();
        told.trim_end().rsplit_once("; help: ").expect("advice").1.to_owned()
    };
    assert_eq!(help("modle.optim.lr=1"), "did you mean `model`?");
    assert_eq!(help("model.optim.betas=[0,1]"), "to add it: +model.optim.betas=[0,1]");
    assert_eq!(help("trainer.max_steps=5"), "to add it: +trainer.max_steps=5");
    assert_eq!(help("trainer.max_stesp=5"), "did you mean `trainer.max_steps`?");
    assert_eq!(help("trianer.max_steps=5"), "did you mean `trainer.max_steps`?");
    assert_eq!(help("model.xyzzyx=5"), "`sft-run schema --keys` lists every key");
    assert_eq!(help("model={xyzzyx: 5}"), "`sft-run schema --keys` lists every key");
    assert_eq!(help("hydra.run.dir=x"), "to add it: +hydra.run.dir=x");
    assert_eq!(help("model.hidden_size:5"), "write KEY=VALUE, without a colon");
}

#[test]
fn hydras_own_settings_are_left_as_they_are() {
    let case = Case::new("a: 1\nhydra: {run: {dir: \"out/${now:%Y}\", level: ???}}\nb: ${a}\n");
    let values = case.resolved().expect("values");
    let run = json!({"dir": "out/${now:%Y}", "level": "???"});
    assert_eq!(values, json!({"a": 1, "hydra": {"run": run}, "b": 1}));
    assert_eq!(case.json().expect("values"), values);
}

#[test]
fn hparams_are_checked_at_every_level() {
    let case = Case::new("train: {batch_size: 1, lr: 1}\n");
    let case = case.hparams(r#"{"train.batch_size": 8, "train": {"lr": 2e-5}}"#);
    assert_eq!(case.json().expect("values"), json!({"train": {"batch_size": 8, "lr": 2e-5}}));
    let wrong =
        Case::new("train: {batch_size: 1}\n").hparams(r#"{"train.bathc_size": 8}"#).problems();
    assert_eq!(
        wrong,
        "override::unknown_key --hparams:1:2 `\"train.bathc_size\"` (not in the recipe): \
         `train.bathc_size` is not in the recipe; help: did you mean `batch_size`?\n"
    );
}

#[test]
fn a_value_can_come_from_a_file() {
    let case = Case::new("model: {tp: 1, pp: 1}\n").file("m.yaml", "tp: 8\n");
    let path = case.path("m.yaml").display().to_string();
    let case = case.overrides(&[&format!("model=@{path}")]);
    assert_eq!(case.json().expect("values"), json!({"model": {"tp": 8, "pp": 1}}));
}
