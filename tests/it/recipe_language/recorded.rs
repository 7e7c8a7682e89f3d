//! Cases recorded from Hydra 1.3 and `OmegaConf` 2.3; there is no case that differs on purpose.

use super::Case;
use serde_json::{Value, json};
use sft_run::recipe::overrides::{Form, tried};

fn cases(text: &str) -> Vec<Value> {
    match serde_json::from_str(text).expect("recorded cases") {
        Value::Array(cases) => cases,
        Value::Object(mut object) => object["cases"].take().as_array().expect("cases").clone(),
        _ => unreachable!("cases are a list"),
    }
}

fn text<'c>(case: &'c Value, key: &str) -> &'c str {
    case[key].as_str().expect("a text")
}

#[test]
fn scalars_are_read_as_omegaconf_reads_them() {
    for case in cases(include_str!("../../fixtures/recipe_language/omegaconf_scalars.json")) {
        let literal = text(&case, "literal");
        let found = Case::new(format!("v: {literal}\n")).json();
        match case.get("ok") {
            Some(expected) => {
                assert_eq!(found.expect("a value")["v"], *expected, "{literal:?}");
            }
            None => assert!(found.is_err(), "{literal:?} should be refused, got {found:?}"),
        }
    }
}

#[test]
fn interpolations_give_what_omegaconf_gives() {
    for case in cases(include_str!("../../fixtures/recipe_language/omegaconf_interpolation.json")) {
        let expression = text(&case, "expr");
        let mut recipe = "a: 2\nl: [7, 8]\nm: {b: 5}\n".to_owned();
        if expression.contains("miss") {
            recipe += "miss: ???\n";
        }
        let key = if expression == "${self}" { "self" } else { "expr" };
        recipe += &format!("{key}: {}\n", json!(expression));
        let found = Case::new(recipe).resolved();
        let Some(expected) = case.get("ok") else {
            let problems = found.expect_err(expression);
            let codes: &[&str] = match text(&case, "err") {
                "InterpolationKeyError" => &["interpolation::not_found"],
                "InterpolationToMissingValueError" => &["recipe::missing_value"],
                "InterpolationResolutionError" => {
                    &["interpolation::arguments", "interpolation::cycle"]
                }
                // The braces are an expression of ours before they could be wrong.
                _ if expression.starts_with("${{") => {
                    &["template::undefined", "interpolation::syntax"]
                }
                _ => &["interpolation::syntax"],
            };
            assert!(problems.iter().all(|p| codes.contains(&p.code)), "{expression}: {problems:?}");
            continue;
        };
        assert_eq!(found.expect(expression)[key], *expected, "{expression}");
    }
}

#[test]
fn overrides_do_what_hydra_does() {
    let recorded = include_str!("../../fixtures/recipe_language/hydra_overrides.json");
    let base: Value = serde_json::from_str(recorded).expect("recorded cases");
    for case in cases(recorded) {
        let overrides: Vec<_> = case["overrides"].as_array().expect("a list").iter().collect();
        let overrides: Vec<_> = overrides.iter().filter_map(|text| text.as_str()).collect();
        let found = Case::new(text(&base, "base")).overrides(&overrides).json();
        match case.get("ok") {
            Some(expected) => assert_eq!(found.expect("values"), *expected, "{overrides:?}"),
            None => assert!(found.is_err(), "{overrides:?} should be refused, got {found:?}"),
        }
    }
}

#[test]
fn sweeps_try_what_hydra_tries() {
    for case in cases(include_str!("../../fixtures/recipe_language/hydra_sweeps.json")) {
        let typed = text(&case, "override");
        let found = tried(typed);
        if case.get("err").is_some() {
            assert!(found.is_err(), "{typed} should be refused, got {found:?}");
            continue;
        }
        let found = found.expect(typed).expect("several values");
        let form = match found.form {
            Form::Simple => "ValueType.SIMPLE_CHOICE_SWEEP",
            Form::Choice => "ValueType.CHOICE_SWEEP",
            Form::Range => "ValueType.RANGE_SWEEP",
            Form::Interval(..) | Form::IntegerInterval(..) => "ValueType.INTERVAL_SWEEP",
            Form::Glob => "ValueType.GLOB_CHOICE_SWEEP",
        };
        assert_eq!((form, found.key.as_str()), (text(&case, "value_type"), text(&case, "key")));
        // Where nothing is recorded (random order, intervals, patterns), nothing is compared.
        if let Some(expected) = case["strings"].as_array() {
            let expected: Vec<_> = expected.iter().map(|value| value.as_str().unwrap()).collect();
            assert_eq!(found.values.expect("values"), expected, "{typed}");
        }
    }
    let Ok(Some(interval)) = tried("x=int(interval(1,5))") else { panic!("an interval") };
    assert_eq!(interval.form, Form::IntegerInterval(1, 5));
}
