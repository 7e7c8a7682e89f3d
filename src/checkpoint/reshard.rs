//! Any source's tensors as a native checkpoint of any layout, slice by slice: never a whole model
//! in memory, and no whole tensor either.

use super::error::Error;
use super::manifest::{Header, Kind};
use super::source::{self, Source};
use super::writer::{Draft, PieceSpec, PieceWriter, Written};
use crate::layout::mesh;
use crate::layout::parameters::{Parameter, table};
use crate::layout::pieces::{Piece, written, written_shards};
use crate::spec::architecture::Architecture;
use crate::spec::optimization::Degrees;
use rayon::prelude::*;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Bytes that are read and written at a time: few enough to stay in a processor's cache meanwhile.
const BAND: usize = 4 << 20;

/// Writes `source` as the native checkpoint `target`, which must not exist, cut for the layout of
/// `header`; optimizer state goes along. Returns the checkpoint's bytes.
///
/// `progress` hears of bytes done and of all bytes. Values keep their number format. Padding of the
/// vocabulary is left out; where the layout cannot share out the padded vocabulary evenly, the
/// checkpoint says a larger one.
pub fn reshard(
    source: &dyn Source,
    target: &Path,
    mut header: Header,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<u64, Error> {
    if let Some(reason) = problem(&header.architecture, &header.layout) {
        return Err(Error::unusable(source.path(), reason));
    }
    let padded = header.architecture.padded_vocab_size.next_multiple_of(header.layout.tensor);
    header.architecture.padded_vocab_size = padded;
    let table = table(&header.architecture);
    let files = files(source, &table, &header.layout)?;
    let total = files.iter().flat_map(|file| &file.specs).map(|spec| spec.size() as u64).sum();
    let draft = Draft::begin(target)?;
    let told = Mutex::new((0, progress));
    let tell = |bytes: usize| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += bytes as u64;
        let done = told.0;
        (told.1)(done, total);
    };
    // Files side by side: while one waits for the disk, another is read and hashed.
    let copy = |file: File<'_>| file.copy(source, draft.folder(), &tell);
    let written = files.into_par_iter().map(copy).collect::<Result<Vec<_>, Error>>()?;
    draft.commit(header, written)
}

/// Why a model of this shape cannot be cut this way, if it cannot.
pub fn problem(architecture: &Architecture, layout: &Degrees) -> Option<String> {
    let Degrees { tensor, pipeline, virtual_pipeline, .. } = *layout;
    let divided = [
        // Key and value heads first: they are fewer, and what usually cannot be divided.
        ("num_query_groups", architecture.num_query_groups),
        ("num_attention_heads", architecture.num_attention_heads),
        ("ffn_hidden_size", architecture.ffn_hidden_size),
    ];
    if let Some((name, size)) = divided.iter().find(|(_, size)| !size.is_multiple_of(tensor)) {
        return Some(format!(
            "{name} {size} cannot be divided among {tensor} tensor-parallel ranks: choose a \
             tensor_model_parallel_size that divides it"
        ));
    }
    let chunks = pipeline * virtual_pipeline;
    (!architecture.num_layers.is_multiple_of(chunks)).then(|| {
        format!(
            "{} layers cannot be divided among {chunks} pipeline chunks: choose a \
             pipeline_model_parallel_size that divides them",
            architecture.num_layers
        )
    })
}

/// A file to be written: its pieces, and where each comes from.
struct File<'a> {
    name: String,
    specs: Vec<PieceSpec>,
    pieces: Vec<Piece<'a>>,
}

fn files<'a>(
    source: &dyn Source,
    table: &'a [Parameter],
    layout: &Degrees,
) -> Result<Vec<File<'a>>, Error> {
    let has = |kind: &Kind| source.tensors().keys().any(|name| Kind::of(name).0 == *kind);
    let state: Vec<Kind> = Kind::ALL[1..].iter().copied().filter(has).collect();
    let mut files = Vec::new();
    for rank in 0..layout.world_size() {
        let at = mesh::coordinates(layout, rank);
        let weights = written(table, layout, at);
        files.extend(file(source, model_file(rank), &[Kind::Weight], &weights)?);
        let shards = written_shards(table, layout, at);
        files.extend(file(source, optimizer_file(rank), &state, &shards)?);
    }
    // Each begins at another tensor: those that read one at the same time wait for its hash.
    let count = files.len();
    for (number, file) in files.iter_mut().enumerate() {
        let first = number * file.specs.len() / count;
        file.specs.rotate_left(first);
        file.pieces.rotate_left(first);
    }
    Ok(files)
}

/// Name of the file of a rank's weights.
pub fn model_file(rank: usize) -> String {
    format!("model-{rank:05}.safetensors")
}

/// Name of the file of a rank's optimizer state.
pub fn optimizer_file(rank: usize) -> String {
    format!("optimizer-{rank:05}.safetensors")
}

/// The file of these kinds of these pieces; none when it would be empty.
fn file<'a>(
    source: &dyn Source,
    name: String,
    kinds: &[Kind],
    pieces: &[Piece<'a>],
) -> Result<Option<File<'a>>, Error> {
    let mut file = File { name, specs: Vec::new(), pieces: Vec::new() };
    for kind in kinds {
        for piece in pieces {
            let name = kind.name(&piece.parameter.name);
            // A frozen parameter has no state.
            if *kind != Kind::Weight && !source.tensors().contains_key(&name) {
                continue;
            }
            let dtype = source::facts(source, &name, piece.parameter)?.dtype;
            let (shape, slice) = (piece.parameter.stored_shape(), piece.slice.clone());
            file.specs.push(PieceSpec { name, shape, dtype, slice });
            file.pieces.push(piece.clone());
        }
    }
    Ok((!file.specs.is_empty()).then_some(file))
}

impl File<'_> {
    fn copy(
        self,
        source: &dyn Source,
        folder: &Path,
        tell: &(dyn Fn(usize) + Sync),
    ) -> Result<Written, Error> {
        let File { name, specs, pieces } = self;
        let mut writer = PieceWriter::create(folder, &name, specs.clone())?;
        for (spec, Piece { parameter, slice }) in specs.iter().zip(pieces) {
            let count = slice.element_count(&parameter.shape);
            let band = BAND * 8 / spec.dtype.bitsize();
            for start in (0..count).step_by(band) {
                let part = slice.clone().elements(start..count.min(start + band));
                let (_, bytes) = source::read_padded(source, &spec.name, parameter, &part)?;
                writer.write(&bytes)?;
                tell(bytes.len());
            }
        }
        writer.finish()
    }
}
