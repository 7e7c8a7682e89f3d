//! The recipe language: recorded cases of Hydra and OmegaConf, places of problems, hostile input.

mod hostile;
mod problems;
mod recorded;
mod round_trip;
mod templates;

use serde_json::Value;
use sft_run::recipe::problem::Problem;
use sft_run::recipe::{Request, View, config_text, resolve};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A folder with files, and what goes with a request for one of them.
struct Case {
    folder: tempfile::TempDir,
    overrides: Vec<String>,
    variables: Vec<(String, String)>,
    environment: BTreeMap<String, String>,
    hparams: Option<String>,
}

impl Case {
    /// One file, `recipe.yaml`.
    fn new(text: impl AsRef<[u8]>) -> Case {
        let folder = tempfile::tempdir().expect("a folder");
        let case = Case {
            folder,
            overrides: Vec::new(),
            variables: Vec::new(),
            environment: BTreeMap::new(),
            hparams: None,
        };
        case.file("recipe.yaml", text)
    }

    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Case {
        let path = self.folder.path().join(name);
        sft_run::base::atomic_file::write(&path, text.as_ref()).expect("a file");
        self
    }

    fn overrides(mut self, overrides: &[&str]) -> Case {
        self.overrides = overrides.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Case {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn environment(mut self, name: &str, value: &str) -> Case {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn hparams(mut self, json: &str) -> Case {
        self.hparams = Some(json.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with<T>(&self, name: &str, run: impl FnOnce(&Request) -> T) -> T {
        let path = self.path(name);
        run(&Request {
            path: &path,
            overrides: &self.overrides,
            variables: &self.variables,
            environment: &self.environment,
            hparams: self.hparams.as_deref(),
            git: None,
            gpu: None,
        })
    }

    /// The resolved values as JSON, `???` as it stands.
    fn json(&self) -> Result<Value, Vec<Problem>> {
        let view = View { resolve: true, json: true, ..View::default() };
        let text = self.with("recipe.yaml", |request| config_text(request, &view))?;
        Ok(serde_json::from_str(&text).expect("what is printed is JSON"))
    }

    /// The resolved values as a run needs them: nothing missing.
    fn resolved(&self) -> Result<Value, Vec<Problem>> {
        let resolved = self.with("recipe.yaml", resolve)?;
        Ok(serde_json::to_value(resolved.values).expect("keys are texts"))
    }

    /// The problems, each as one line: code, place, message, help.
    fn problems(&self) -> String {
        let problems = self.resolved().expect_err("this has problems");
        problems.iter().map(|problem| self.line(problem) + "\n").collect()
    }

    fn line(&self, problem: &Problem) -> String {
        let mut line = problem.code.to_owned();
        if let Some((place, label)) = &problem.place {
            let (row, column) = place.line_and_column();
            let shown = place.file.text.get(place.span.clone()).expect("a span of the text");
            line += &format!(" {}:{row}:{column} `{shown}` ({label})", place.file.name);
        }
        line += &format!(": {}", problem.message);
        for (place, label) in &problem.related {
            let (row, column) = place.line_and_column();
            line += &format!("; {label} {}:{row}:{column}", place.file.name);
        }
        if let Some(help) = &problem.help {
            line += &format!("; help: {help}");
        }
        let folder = format!("{}/", self.folder.path().display());
        line.replace(&folder, "")
    }
}
