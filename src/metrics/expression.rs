//! A metric written in the recipe: a minijinja expression over `prompt`, `expected` and `output`.

use super::Texts;
use minijinja::{Environment, UndefinedBehavior, context};

/// Why an expression is no score.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("`{source_text}` is not an expression: {reason}")]
    Parse {
        /// The expression.
        source_text: String,
        /// What is wrong.
        reason: String,
    },
    /// It failed on a sample.
    #[error("`{source_text}` fails on row {row}: {reason}")]
    Evaluate {
        /// The expression.
        source_text: String,
        /// The sample, from 1.
        row: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Steps of one evaluation, in minijinja's units.
const FUEL: u64 = 1_000_000;

/// A parsed expression.
#[derive(Debug)]
pub struct Expression {
    environment: Environment<'static>,
    source_text: String,
}

impl Expression {
    /// Parses `source_text`.
    pub fn parse(source_text: &str) -> Result<Expression, Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let parsed = environment.compile_expression(source_text).map(|_| ());
        let source_text = source_text.to_owned();
        match parsed {
            Ok(()) => Ok(Expression { environment, source_text }),
            Err(error) => Err(Error::Parse { source_text, reason: error.to_string() }),
        }
    }

    /// The score of each sample: a number as it is, `true` as 1 and `false` as 0.
    pub fn scores(&self, rows: &[Texts<'_>]) -> Result<Vec<f64>, Error> {
        let source_text = || self.source_text.clone();
        let parsed = self.environment.compile_expression(&self.source_text);
        let parsed = parsed.map_err(|error| Error::Parse {
            source_text: source_text(),
            reason: error.to_string(),
        })?;
        let score = |(index, row): (usize, &Texts<'_>)| {
            let Texts { prompt, expected, output } = *row;
            let value = parsed.eval(context! { prompt, expected, output });
            let reason = match value {
                Ok(value) => match (value.is_true(), f64::try_from(value.clone())) {
                    (_, Ok(number)) if number.is_finite() => return Ok(number),
                    (truth, _) if matches!(value.kind(), minijinja::value::ValueKind::Bool) => {
                        return Ok(f64::from(u8::from(truth)));
                    }
                    _ => format!("it gives `{value}`, which is neither a number nor true or false"),
                },
                Err(error) => error.to_string(),
            };
            Err(Error::Evaluate { source_text: source_text(), row: index + 1, reason })
        };
        rows.iter().enumerate().map(score).collect()
    }
}
