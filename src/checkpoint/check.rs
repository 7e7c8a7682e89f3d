//! Whether a manifest describes a whole model: the right tensors, each element in one piece.

use super::manifest::{Kind, Manifest, TensorEntry};
use crate::layout::parameters::{Parameter, table};
use crate::layout::slice::Slice;
use crate::layout::{frozen, limits};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;

impl Manifest {
    /// Refuses a manifest whose pieces are not the model's tensors.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(name) = self.files.keys().find(|name| !is_plain(name)) {
            return Err(format!("`{name}` is no name for a file"));
        }
        for (name, tensor) in &self.tensors {
            self.check_pieces(tensor).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        }
        let shapes = self.expected()?;
        if let Some(extra) = self.tensors.keys().find(|name| !shapes.contains_key(*name)) {
            return Err(format!("the model has no tensor `{extra}`"));
        }
        for (name, shape) in &shapes {
            match self.tensors.get(name) {
                None => return Err(format!("tensor `{name}` is missing")),
                Some(found) if found.shape != *shape => {
                    let found = &found.shape;
                    return Err(format!(
                        "tensor `{name}` has shape {found:?}, the model needs {shape:?}"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Shapes of the tensors that must be there: all parameters, and of each kind of state of which
    /// there is any, that of all parameters but frozen ones.
    fn expected(&self) -> Result<BTreeMap<String, Vec<usize>>, String> {
        let architecture = &self.header.architecture;
        if let Some(reason) = limits::problem(architecture) {
            return Err(format!("its architecture is not a model's: {reason}"));
        }
        // A layer has several tensors; the table of a made-up number of layers would fill memory.
        if architecture.num_layers > self.tensors.len() {
            return Err(format!("tensors of {} layers are missing", architecture.num_layers));
        }
        let has = |kind: &Kind| {
            *kind == Kind::Weight || self.tensors.keys().any(|name| Kind::of(name).0 == *kind)
        };
        let frozen = self.header.frozen();
        let rows = table(architecture);
        let mut shapes = BTreeMap::new();
        for kind in Kind::ALL.into_iter().filter(has) {
            let is_there =
                |row: &&Parameter| kind == Kind::Weight || !frozen::names(&frozen, &row.name);
            let rows = rows.iter().filter(is_there);
            shapes.extend(rows.map(|row| (kind.name(&row.name), row.stored_shape())));
        }
        Ok(shapes)
    }

    fn check_pieces(&self, tensor: &TensorEntry) -> Result<(), String> {
        if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(format!("numbers of format {:?} are not read", tensor.dtype));
        }
        let elements = element_count(&tensor.shape).ok_or("its shape is impossible")?;
        let mut runs: Vec<Range<usize>> = Vec::new();
        let whole = Slice::whole(&tensor.shape);
        for piece in &tensor.pieces {
            let slice = piece.slice.as_ref().unwrap_or(&whole);
            if let Some(problem) = slice.problem(&tensor.shape) {
                return Err(problem.to_owned());
            }
            let size = self.files.get(&piece.file).ok_or("its file is not listed")?;
            // Runs are not counted out before they can lie in the file.
            if slice.element_count(&tensor.shape) as u64 > *size {
                return Err(format!("it does not fit into {}", piece.file));
            }
            runs.extend(slice.runs(&tensor.shape));
        }
        runs.sort_unstable_by_key(|run| run.start);
        let mut end = 0;
        for run in runs {
            if run.start != end {
                return Err("its pieces do not make a whole".to_owned());
            }
            end = run.end;
        }
        if end == elements { Ok(()) } else { Err("its pieces do not make a whole".to_owned()) }
    }
}

/// The number of elements; none when it does not fit a machine's memory.
fn element_count(shape: &[usize]) -> Option<usize> {
    let product =
        shape.iter().try_fold(1_usize, |product, size| product.checked_mul((*size).max(1)))?;
    let fits = !shape.is_empty() && !shape.contains(&0) && product < 1 << 48;
    fits.then_some(product)
}

/// Whether `name` names a file in the folder itself.
fn is_plain(name: &str) -> bool {
    let mut parts = std::path::Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_)))
        && parts.next().is_none()
        && !name.contains(['/', '\\', '\0'])
}
