//! Input made to hurt is refused with a problem, soon and in little memory.

use super::Case;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Far above what the refusals take, for machines that are busy.
const SOON: Duration = Duration::from_secs(4);

fn refused(text: impl AsRef<[u8]>, code: &str) {
    let case = Case::new(text);
    let start = Instant::now();
    let problems = case.resolved().expect_err("this is refused");
    let spent = start.elapsed();
    assert!(spent < SOON, "{code} after {spent:?}");
    let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    assert!(codes.contains(&code), "{code}: {codes:?}");
}

#[test]
fn a_file_of_ten_megabytes() {
    refused("a: 1\n".repeat(2_000_000), "recipe::too_large");
}

#[test]
fn four_megabytes_of_short_values() {
    let mut text = String::new();
    for key in 0..400_000 {
        writeln!(text, "{key:06}a:").expect("a text");
    }
    refused(text, "recipe::too_large");
}

#[test]
fn ten_thousand_levels() {
    refused("[".repeat(10_000), "yaml::syntax");
    refused(format!("a: {}", "{a: ".repeat(10_000)), "recipe::too_large");
    let mut text = String::new();
    for level in 0..1_500 {
        writeln!(text, "{}a:", " ".repeat(level)).expect("a text");
    }
    refused(text, "yaml::syntax");
}

#[test]
fn a_bomb_of_aliases() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        writeln!(text, "a{level}: &a{level} [{below}*a{}]", level - 1).expect("a text");
    }
    refused(text, "recipe::too_large");
    let mut long = format!("a: &a {}\nb:\n", "x".repeat(1 << 20));
    long += &"- *a\n".repeat(100_000);
    refused(long, "recipe::too_large");
    refused("a: &a [*a]\n", "yaml::alias");
}

#[test]
fn a_bomb_of_interpolations() {
    let mut text = "a0: [x, x, x, x, x, x, x, x, x, x]\nb0: xxxxxxxxxx\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        let list = format!("'${{a{below}}}', ").repeat(10);
        writeln!(text, "a{level}: [{list}]").expect("a text");
        writeln!(text, "b{level}: {}", format!("${{b{below}}}").repeat(10)).expect("a text");
    }
    refused(text, "interpolation::too_much");
    let mut chain = "a0: 1\n".to_owned();
    for level in 1..5_000 {
        writeln!(chain, "a{}: ${{a{}}}", 5_000 - level, 4_999 - level).expect("a text");
    }
    refused(chain, "interpolation::too_deep");
    let nested = format!("a: '{}a{}'\n", "${".repeat(5_000), "}".repeat(5_000));
    refused(nested, "interpolation::syntax");
    refused("a: ${multiply:xxxxxxxxxxxxxxxx,4294967296}\n", "interpolation::arguments");
    let wide = format!("a: '{}'\n", "${nope}".repeat(100_000));
    refused(wide, "interpolation::not_found");
}

#[test]
fn a_bomb_of_expressions() {
    refused(format!("a: '{}'\n", "${{ 1 }}".repeat(400_000)), "template::too_much");
    let mut text = "vars:\n".to_owned();
    for key in 0..20_000 {
        writeln!(text, "  v{key}: 1").expect("a text");
    }
    refused(text, "template::too_much");
    refused(format!("a: '${{{{ {}'\n", "(".repeat(100_000)), "template::syntax");
    refused(
        format!("a: '${{{{ {}1{} }}}}'\n", "(".repeat(450), ")".repeat(450)),
        "template::syntax",
    );
}

#[test]
fn chains_that_are_as_deep_as_they_are_long() {
    let chain = "+ 1".repeat(100_000);
    refused(format!("a: '${{{{ 1 {chain} }}}}'\n"), "template::too_much");
    for template in [
        format!("a: {{{{ 1 {chain} }}}}\n"),
        format!("a: {{{{ {}1 }}}}\n", "not ".repeat(100_000)),
        format!("a: 1\n{{% if false %}}{}{{% endif %}}\n", "{% elif false %}x".repeat(100_000)),
        "{% set a = 1 %}".repeat(100_000),
    ] {
        let case = Case::new("a: 1\n").file("t.yaml.j2", template);
        let start = Instant::now();
        let problems = case.with("t.yaml.j2", sft_run::recipe::resolve).expect_err("it is refused");
        assert_eq!(problems[0].code, "template::too_much");
        assert!(start.elapsed() < SOON);
    }
    // What is allowed is walked without harm.
    let nested = "{% elif false %}x".repeat(950);
    let case =
        Case::new("").file("t.yaml.j2", format!("a: 1\n{{% if false %}}{nested}{{% endif %}}\n"));
    case.with("t.yaml.j2", sft_run::recipe::resolve).map(drop).expect("it renders");
    for expression in
        ["1".to_owned() + &"+1".repeat(490), "-".repeat(950) + "1", "not ".repeat(240) + "1"]
    {
        Case::new(format!("a: '${{{{ {expression} }}}}'\n")).resolved().expect("it is a value");
    }
}

#[test]
fn lines_too_long_to_draw_are_quoted() {
    for length in [10_000, 1_000_000] {
        let case = Case::new(format!("{{a: '{}', b: ${{none}}}}\n", "x".repeat(length)));
        let problems =
            case.with("recipe.yaml", sft_run::recipe::resolve).expect_err("it is refused");
        let drawn = sft_run::recipe::diagnostic::render(&problems, false);
        assert!(
            drawn.contains("recipe.yaml:1:1") && drawn.contains("xxx', b: ${none}}…`"),
            "{drawn}"
        );
        assert!(drawn.len() < 1_000, "{drawn}");
    }
}

#[test]
fn long_keys_above_many_values() {
    let mut text = String::new();
    let mut indent = 0;
    for level in 0..40 {
        writeln!(text, "{}{}{level}:", " ".repeat(indent), "k".repeat(1_000)).expect("a text");
        indent += 1;
    }
    let list = "1,".repeat(50_000);
    writeln!(text, "{}x: [{list}]", " ".repeat(indent)).expect("a text");
    refused(text, "recipe::too_large");
}

#[test]
fn bytes_that_are_no_text() {
    refused(b"a: 1\nb: \xff\xfe\n", "recipe::not_utf8");
    refused(b"\xff\xfea\0:\0 \x001\0", "recipe::not_utf8");
    let problem = Case::new(b"a: 1\nb: \xff\n").problems();
    assert!(problem.contains("recipe.yaml:2:4"), "{problem}");
    refused("", "yaml::not_a_mapping");
    refused("- 1\n", "yaml::not_a_mapping");
    refused("a: 1\n---\nb: 2\n", "yaml::documents");
}

#[test]
fn overrides_that_reach_too_far() {
    let deep = format!("++a{}=1", ".a".repeat(10_000));
    let nested = format!("a={}", "[".repeat(10_000));
    let mapped = format!("a={}", "{a:".repeat(10_000));
    let called = format!("a={}", "int(".repeat(10_000));
    let wide = format!("a=[{}]", "1,".repeat(20_000));
    for text in [deep, nested, mapped, called, wide] {
        let start = Instant::now();
        let found = Case::new("a: 1\n").overrides(&[&text]).resolved();
        assert!(found.is_err() && start.elapsed() < SOON, "{}", &text[..20]);
    }
}
