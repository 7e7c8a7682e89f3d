//! What is printed reads back as the same tree, and no text makes the language panic.

use super::Case;
use proptest::prelude::*;
use serde_yaml::{Mapping, Value};
use sft_run::recipe::{View, config_text, resolve};

/// Texts that YAML readers like to take for something else, and any other.
fn texts() -> impl Strategy<Value = String> {
    let traps = [
        "",
        "yes",
        "No",
        "on",
        "y",
        "null",
        "~",
        "1e-5",
        "6e-05",
        "017",
        "0o17",
        "0x1F",
        "1_000",
        "12:30:45",
        ".inf",
        "nan",
        "-.5",
        "=",
        "<<",
        "- a",
        "a: b",
        "a #b",
        "#a",
        "{a}",
        "[a]",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        "'",
        "\"",
        "\\",
        "a\nb",
        " a ",
        "a\t",
        "\u{0}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{feff}",
        "é",
        "日本",
        "🦀",
        "...",
        "---",
        "?",
        "? a",
        "-",
        "2001-01-01",
        "true",
        "None",
        "{{ x }}",
        "{input} {output}",
    ];
    prop_oneof![
        prop::sample::select(traps.to_vec()).prop_map(str::to_owned),
        any::<String>().prop_map(|text| text.replace("${", "$ {")),
        "[a-z0-9_.:#' -]{0,12}",
    ]
}

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("NaN is not itself", |x| !x.is_nan()).prop_map(Value::from),
        texts().prop_filter("missing", |text| text != "???").prop_map(Value::from),
    ]
}

fn trees() -> impl Strategy<Value = Value> {
    let tree = scalars().prop_recursive(4, 40, 6, |below| {
        let mapping = |pairs: Vec<(String, Value)>| {
            let pairs = pairs.into_iter().map(|(key, value)| (Value::from(key), value));
            Value::Mapping(pairs.collect::<Mapping>())
        };
        prop_oneof![
            prop::collection::vec(below.clone(), 0..5).prop_map(Value::Sequence),
            prop::collection::vec((texts(), below), 0..5).prop_map(mapping),
        ]
    });
    prop::collection::vec((texts(), tree), 1..5).prop_map(|pairs| {
        let keep = |(key, _): &(String, Value)| key != "vars" && key != "extends";
        let pairs = pairs.into_iter().filter(keep);
        Value::Mapping(pairs.map(|(key, value)| (Value::from(key), value)).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_reads_back_the_same(tree in trees()) {
        prop_assume!(!tree.as_mapping().unwrap().is_empty());
        // serde_yaml writes it for the first time; what it quotes is read by our rules.
        let json = serde_json::to_string(&tree).unwrap();
        prop_assume!(!json.contains("\"<<\""));
        let Ok(first) = Case::new(serde_yaml::to_string(&tree).unwrap()).with("recipe.yaml", resolve)
        else { return Ok(()) };
        for origins in [false, true] {
            let printed = Case::new(serde_yaml::to_string(&tree).unwrap()).with("recipe.yaml", |request| {
                config_text(request, &View { resolve: true, origins, ..View::default() })
            }).unwrap();
            let again = Case::new(&printed).with("recipe.yaml", resolve);
            let again = again.map_err(|problems| TestCaseError::fail(format!("{printed}\n{problems:?}")))?;
            prop_assert_eq!(&again.values, &first.values, "{}", printed);
        }
    }

    #[test]
    fn no_recipe_panics(text in ".{0,80}", words in "[a-z0-9${}:.,\\[\\]' \"\n|&*<-]{0,60}") {
        let _ = Case::new(&text).resolved();
        let _ = Case::new(format!("a: 1\nb: {words}\n")).resolved();
        let _ = Case::new(format!("a: 1\nb: {}\n", serde_json::json!(words))).resolved();
    }

    #[test]
    fn no_override_panics(text in ".{0,60}", words in "[ab0-9${}:.,\\[\\]'\"~+=()\\\\ -]{0,40}") {
        let _ = Case::new("a: {b: [1, 2]}\n").overrides(&[&text, &format!("a={words}"), &words]).json();
        let _ = sft_run::recipe::overrides::expand_sweep(&[text, format!("a={words}")]);
    }
}

#[test]
fn a_printed_config_looks_like_omegaconfs() {
    let case = Case::new("b: [1, {c: 6e-5}]\na: {x: 'yes', y: '${b}'}\nm: ???\nk: ${m}\ne: {}\n");
    let view = |resolve, path, origins, json| {
        case.with("recipe.yaml", |request| {
            config_text(request, &View { resolve, path, origins, json }).expect("a text")
        })
    };
    assert_eq!(
        view(false, None, false, false),
        "b:\n- 1\n- c: 6e-05\na:\n  x: 'yes'\n  'y': ${b}\nm: ???\nk: ${m}\ne: {}\n"
    );
    assert_eq!(view(true, Some("a"), false, false), "x: 'yes'\n'y':\n- 1\n- c: 6e-05\n");
    assert_eq!(view(true, Some("b.1.c"), false, false), "6e-05\n");
    assert_eq!(view(true, Some("e"), false, true), "{}\n");
    let origins = view(true, Some("b"), true, false);
    assert!(origins.starts_with("- 1  # ") && origins.contains("recipe.yaml:1\n"), "{origins}");
}
