//! The first word of the command line: a command, or a recipe to run.

use super::arguments::Arguments;
use crate::base::suggest::nearest;
use clap::CommandFactory;
use std::ffi::OsString;
use std::path::Path;

/// What is wrong with the first word.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is neither a command nor a recipe")]
pub(super) struct Unknown {
    /// The word.
    pub word: String,
    /// What may be meant.
    pub help: String,
}

/// `arguments` (the program's name first) with `run` put in where a recipe stands for a command.
pub(super) fn with_command(mut arguments: Vec<OsString>) -> Result<Vec<OsString>, Unknown> {
    let Some(word) = first_positional(&arguments) else { return Ok(arguments) };
    if word == "help" || commands().contains(&word) {
        return Ok(arguments);
    }
    if !looks_like_a_path(&word) {
        let help = command_help(&word);
        return Err(Unknown { word, help });
    }
    arguments.insert(1, "run".into());
    Ok(arguments)
}

/// The names of all commands.
fn commands() -> Vec<String> {
    let command = Arguments::command();
    command.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// The first argument that is neither an option nor an option's value.
fn first_positional(arguments: &[OsString]) -> Option<String> {
    let valued = options_with_values();
    let mut rest = arguments.iter().skip(1).map(|argument| argument.to_string_lossy());
    while let Some(argument) = rest.next() {
        if argument == "--" {
            return None;
        }
        if !argument.starts_with('-') {
            return Some(argument.into_owned());
        }
        if valued.iter().any(|name| argument == *name) {
            rest.next();
        }
    }
    None
}

/// Options of `run`, and of all commands, that take the next argument as their value.
fn options_with_values() -> Vec<String> {
    let command = Arguments::command();
    let run = command.find_subcommand("run").into_iter();
    let options = run.flat_map(clap::Command::get_arguments).chain(command.get_arguments());
    let valued = options.filter(|option| option.get_action().takes_values());
    valued.filter_map(|option| option.get_long().map(|name| format!("--{name}"))).collect()
}

fn looks_like_a_path(word: &str) -> bool {
    const ENDINGS: [&str; 4] = [".yaml", ".yml", ".j2", ".json"];
    word.contains('/')
        || ENDINGS.iter().any(|ending| word.ends_with(ending))
        || Path::new(word).is_file()
}

fn command_help(word: &str) -> String {
    let known = commands();
    match nearest(word, known.iter().map(String::as_str)) {
        Some(command) => {
            format!("did you mean `sft-run {command}`? `sft-run --help` lists the commands")
        }
        None => "give a recipe (`sft-run recipe.yaml`) or a command (`sft-run --help` lists them)"
            .to_owned(),
    }
}

/// The recipe beside `path`, or in `recipes/`, whose name is nearest to the missing one's.
pub(super) fn nearest_recipe(path: &Path) -> Option<String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folders = [parent.unwrap_or(Path::new(".")), Path::new("recipes")];
    let files =
        folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let recipes: Vec<_> = files
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ["yaml", "yml", "j2"].iter().any(|known| ending == *known))
        })
        .collect();
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stems: Vec<String> = recipes.iter().map(|path| stem(path)).collect();
    let name = nearest(&stem(path), stems.iter().map(String::as_str))?;
    let found = recipes.into_iter().find(|path| stem(path) == name)?;
    Some(found.strip_prefix("./").unwrap_or(&found).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, expected: Result<&str, &str>) {
        let words = typed.split(' ').map(OsString::from).collect();
        match (with_command(words), expected) {
            (Ok(words), Ok(expected)) => {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                assert_eq!(words.join(" "), expected);
            }
            (Err(unknown), Err(expected)) => {
                assert!(unknown.help.contains(expected), "{unknown:?}");
            }
            (found, expected) => panic!("{typed}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_recipe_stands_for_run() {
        check("sft-run a.yaml model.seed=2", Ok("sft-run run a.yaml model.seed=2"));
        check("sft-run --cache-dir c -q x/y --json", Ok("sft-run run --cache-dir c -q x/y --json"));
        check("sft-run --log-format json plan a.yaml", Ok("sft-run --log-format json plan a.yaml"));
        check("sft-run --version", Ok("sft-run --version"));
        check("sft-run plam a.yaml", Err("did you mean `sft-run plan`?"));
        check("sft-run frobnicate", Err("give a recipe"));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
