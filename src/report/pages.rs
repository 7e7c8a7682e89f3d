//! Pages that need no other file and no network: a template with the shared style and script put in.

use super::numbers;
use super::record::Error;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde::Serialize;

/// What all pages have around their sections; a kind of page fills its blocks.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SHARED_SCRIPT: &str = include_str!("page.js");

/// What a kind of page is made of.
pub(super) struct Source {
    /// The file's name; it ends in `.html`, which is what turns escaping on.
    pub(super) file: &'static str,
    /// A minijinja template that fills the blocks of `page.html` from `page`.
    pub(super) template: &'static str,
    /// The script of this kind alone; it comes after the shared one.
    pub(super) script: &'static str,
}

/// The page of `values`; texts in them are escaped.
pub(super) fn render(source: &Source, values: impl Serialize) -> Result<String, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.add_filter("quantity", numbers::quantity);
    environment.add_filter("duration", numbers::duration);
    environment.add_template("page.html", PAGE)?;
    environment.add_template(source.file, source.template)?;
    let script = format!("{SHARED_SCRIPT}\n{}", source.script);
    let values = context! { page => Serde(values), style => STYLE, script };
    Ok(environment.get_template(source.file)?.render(values)?)
}
