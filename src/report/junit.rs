//! `JUnit` XML, the form in which CI systems show what passed.

use std::fmt::Write;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It passed.
    Passed,
    /// It failed: a line, and the details.
    Failed(String, String),
    /// It was not looked at, and why.
    Skipped(String),
}

/// One case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Seconds it took.
    pub seconds: f64,
    /// How it ended.
    pub ending: Ending,
}

/// The XML document of one suite.
pub fn document(suite: &str, cases: &[Case]) -> String {
    let count =
        |wanted: fn(&Ending) -> bool| cases.iter().filter(|case| wanted(&case.ending)).count();
    let failures = count(|ending| matches!(ending, Ending::Failed(..)));
    let skipped = count(|ending| matches!(ending, Ending::Skipped(_)));
    let seconds: f64 = cases.iter().map(|case| case.seconds).sum();
    let suite = escaped(suite);
    let numbers = format!(
        "name=\"{suite}\" tests=\"{}\" failures=\"{failures}\" skipped=\"{skipped}\" errors=\"0\" time=\"{seconds:.3}\"",
        cases.len()
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite {numbers}>\n"
    );
    for one in cases {
        let (name, seconds) = (escaped(&one.name), one.seconds);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "    <testcase classname=\"{suite}\" name=\"{name}\" time=\"{seconds:.3}\""
        );
        text += &match &one.ending {
            Ending::Passed => "/>\n".to_owned(),
            Ending::Failed(line, details) => format!(
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                escaped(line),
                escaped(details)
            ),
            Ending::Skipped(why) => {
                format!(">\n      <skipped message=\"{}\"/>\n    </testcase>\n", escaped(why))
            }
        };
    }
    text + "  </testsuite>\n</testsuites>\n"
}

/// Text as it may stand in an attribute or between tags; what XML 1.0 has no form for is replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(letter),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_counts_its_cases_and_escapes_their_words() {
        let case = |name: &str, ending| Case { name: name.to_owned(), seconds: 0.5, ending };
        let failed = Ending::Failed("1 < 2".to_owned(), "\"a\" & \u{1}".to_owned());
        let text = document(
            "verify a&b",
            &[
                case("tokenize", Ending::Passed),
                case("train", failed),
                case("evaluate", Ending::Skipped("later".to_owned())),
            ],
        );
        assert!(text.contains("name=\"verify a&amp;b\" tests=\"3\" failures=\"1\" skipped=\"1\""));
        assert!(
            text.contains("<failure message=\"1 &lt; 2\">&quot;a&quot; &amp; \u{fffd}</failure>")
        );
        assert!(text.contains("time=\"1.500\""));
    }
}
