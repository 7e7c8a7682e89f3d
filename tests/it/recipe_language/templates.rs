//! `${{ … }}`, `*.yaml.j2`, `vars`, `extends`.

use super::Case;
use serde_json::json;
use sft_run::recipe::{Git, Gpus, Request, View, config_text};

#[test]
fn an_expression_alone_keeps_its_type_and_another_is_text() {
    let case = Case::new(
        "vars: {lr: 6e-5, size: 1.3b, doubled: \"${{ vars.lr * 2 }}\"}
lr: ${{ vars.lr }}
list: \"${{ [1, vars.lr] }}\"
text: run ${{ vars.size }} at ${{ vars.lr }}, ${{ true }}
nested: \"${{ {'a': {'b': 1}}['a'] }}\"
later: ${lr}
",
    );
    let expected = json!({
        "vars": {"lr": 6e-5, "size": "1.3b", "doubled": 1.2e-4},
        "lr": 6e-5,
        "list": [1, 6e-5],
        "text": "run 1.3b at 6e-05, True",
        "nested": {"b": 1},
        "later": 6e-5,
    });
    assert_eq!(case.json().expect("values"), expected);
}

#[test]
fn variables_come_from_the_command_line() {
    let recipe = "vars: {lr: ???, version: '1.9'}\nlr: ${{ vars.lr }}\nv: ${{ vars.version }}\n";
    let case = Case::new(recipe).variable("lr", "1e-4").variable("version", "1.10");
    let expected = json!({"vars": {"lr": 1e-4, "version": "1.10"}, "lr": 1e-4, "v": "1.10"});
    assert_eq!(case.json().expect("values"), expected);

    let wrong = Case::new(recipe).variable("versoin", "2").variable("lr", "1").problems();
    assert_eq!(
        wrong,
        "template::unknown_variable --var:1:1 `versoin` (this name): the recipe has no variable \
         `versoin`; help: did you mean `version`?\n"
    );
}

#[test]
fn what_is_not_defined_is_a_problem_with_a_place() {
    let case = Case::new(
        "vars: {rate: 1}\na:\n  b: x ${{ vars.rat + 1 }}\nc: ${{ nope }}\nd: ${{ 1 + }}\n",
    );
    assert_eq!(
        case.problems(),
        "template::undefined recipe.yaml:3:12 `vars.rat + 1` (in this expression): `vars.rat` is not \
         defined; help: did you mean `vars.rate`?\n\
         template::undefined recipe.yaml:4:7 ` nope ` (in this expression): `nope` is not defined; \
         help: expressions see vars, env, git and gpu\n\
         template::syntax recipe.yaml:5:10 `+` (in this expression): cannot read this \
         expression: unexpected end of input, expected expression\n"
    );
}

#[test]
fn only_listed_environment_variables_are_seen() {
    let case = Case::new("a: ${{ env.SFT_X }}\nb: ${oc.env:TOKEN}\n")
        .environment("SFT_X", "1")
        .environment("TOKEN", "t");
    assert_eq!(case.json().expect("values"), json!({"a": "1", "b": "t"}));
    let case = Case::new("a: ${{ env.TOKEN }}\n").environment("TOKEN", "t");
    let problem = case.problems();
    assert!(problem.starts_with("template::environment recipe.yaml:1:7"), "{problem}");
}

#[test]
fn git_and_gpu_are_what_the_caller_says() {
    let case = Case::new("a: ${{ git.short }}\nb: ${{ gpu.count }}\n");
    let git = Git { commit: "0123456789abcdef".to_owned(), branch: None, dirty: false };
    let gpu = Gpus { count: 8, name: None, memory: None };
    let view = View { resolve: true, ..View::default() };
    let text = case.with("recipe.yaml", |request| {
        config_text(&Request { git: Some(&git), gpu: Some(&gpu), ..*request }, &view)
    });
    assert_eq!(text.expect("values"), "a: '01234567'\nb: 8\n");
    assert!(case.problems().contains("this recipe is in no git checkout"));
}

#[test]
fn a_recipe_lies_over_those_it_extends() {
    let case = Case::new("extends: [base.yaml, more.yaml]\nmodel: {lr: 2, betas: [1]}\n")
        .file("base.yaml", "model: {lr: 1, betas: [0.9, 0.95], tp: 2}\nname: base\n")
        .file("more.yaml", "extends: base.yaml\nname: more\n");
    let expected = json!({"model": {"lr": 2, "betas": [1], "tp": 2}, "name": "more"});
    assert_eq!(case.json().expect("values"), expected);
}

#[test]
fn a_circle_of_recipes_is_refused() {
    let case = Case::new("extends: a.yaml\n").file("a.yaml", "x: 1\nextends: recipe.yaml\n");
    assert_eq!(
        case.problems(),
        "extends::cycle a.yaml:2:10 `recipe.yaml` (closes the circle): recipes extend each other \
         in a circle: recipe.yaml → a.yaml → recipe.yaml\n"
    );
    let problem = Case::new("extends: nope.yaml\n").problems();
    assert!(problem.starts_with("recipe::unreadable recipe.yaml:1:10"), "{problem}");
    assert!(problem.contains("help: a path in `extends` is relative to the file"), "{problem}");
    let near = Case::new("extends: bases.yaml\n").file("base.yaml", "x: 1\n").problems();
    assert!(near.contains("help: did you mean `base.yaml`? a path in `extends`"), "{near}");
    let itself = Case::new("extends: recipes.yaml\n").problems();
    assert!(!itself.contains("did you mean"), "{itself}");
}

#[test]
fn a_whole_file_can_be_a_template_and_problems_name_both_lines() {
    let template = "# {{ vars.size }}\nmodel:\n{% for n in range(2) %}\n  layer{{ n }}: {width: {{ n * 8 }}}\n{% endfor %}\n{%- if vars.size == 'big' %}\n  lr: ${nope}\n{% endif %}\n";
    let case = Case::new("extends: t.yaml.j2\n").file("t.yaml.j2", template);
    let fine = case.variable("size", "small");
    let expected = json!({"model": {"layer0": {"width": 0}, "layer1": {"width": 8}}});
    assert_eq!(fine.json().expect("values"), expected);

    let wrong =
        Case::new("extends: t.yaml.j2\n").file("t.yaml.j2", template).variable("size", "big");
    assert_eq!(
        wrong.problems(),
        "interpolation::not_found t.yaml.j2 (rendered):5:7 `${nope}` (in this interpolation): \
         `${nope}` leads nowhere: the recipe has no `nope`; made by this line of the template \
         t.yaml.j2:7:1\n"
    );
    let unset = Case::new("extends: t.yaml.j2\n").file("t.yaml.j2", template).problems();
    assert!(unset.starts_with("template::undefined t.yaml.j2:1:6 `vars.size`"), "{unset}");
    assert!(unset.contains("help: give it with --var name=value"), "{unset}");
    // `--var` sets what an ordinary recipe declares, and nothing else.
    let undeclared = Case::new("a: ${{ vars.size }}\n").problems();
    assert!(undeclared.contains("declare it in the recipe under `vars:`"), "{undeclared}");
    let given = Case::new("a: ${{ vars.size }}\n").variable("size", "1").problems();
    assert!(given.contains("declare it in the recipe under `vars:`"), "{given}");
}

#[test]
fn an_expression_that_computes_too_much_is_stopped() {
    let case = Case::new("a: \"${{ range(100000) | map('string') | join('x') * 100000 }}\"\n");
    assert!(case.problems().contains("template::"), "stopped");
}
