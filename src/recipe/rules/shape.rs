//! The model's own numbers: heads, widths, positions.

use crate::recipe::findings::{Findings, number};
use crate::spec::architecture::PositionEmbedding;
use crate::spec::recipe::Model;

const HEADS: &str = "model.num_attention_heads";

pub(super) fn check(model: &Model, findings: &mut Findings) {
    heads(model, findings);
    positions(model, findings);
    rotary(model, findings);
}

fn heads(model: &Model, findings: &mut Findings) {
    let Some(heads) = model.num_attention_heads else { return };
    if let Some(hidden) = model.hidden_size.filter(|hidden| !hidden.is_multiple_of(heads))
        && model.kv_channels.is_none()
    {
        findings
            .error(
                "recipe::head_width",
                "model.hidden_size",
                format!("{hidden} channels"),
                format!(
                    "hidden_size {hidden} cannot be divided evenly among {heads} attention heads"
                ),
            )
            .with(HEADS, format!("{heads} heads"))
            .help(format!(
                "make model.hidden_size a multiple of {heads}, or give model.kv_channels"
            ));
    }
    if let Some(groups) = model.num_query_groups.filter(|groups| !heads.is_multiple_of(*groups)) {
        findings
            .error(
                "recipe::query_groups",
                "model.num_query_groups",
                format!("{groups} groups"),
                format!(
                    "{heads} attention heads cannot be divided evenly among {groups} query groups"
                ),
            )
            .with(HEADS, format!("{heads} heads"))
            .help(format!("choose a model.num_query_groups that divides {heads}"));
    }
}

fn positions(model: &Model, findings: &mut Findings) {
    let Some(length) = model.encoder_seq_length else { return };
    if let Some(most) = model.max_position_embeddings.filter(|most| length > *most) {
        findings
            .error(
                "recipe::sequence_length",
                "model.encoder_seq_length",
                format!("{length} tokens"),
                format!("sequences of {length} tokens do not fit into {most} positions"),
            )
            .with("model.max_position_embeddings", format!("{most} positions"))
            .help(format!(
                "set model.encoder_seq_length to at most {most}, or raise model.max_position_embeddings"
            ));
    }
    let data = model.data.as_ref();
    let differing = data.and_then(|data| data.seq_length).filter(|other| *other > length);
    if let Some(other) = differing {
        findings
            .error(
                "recipe::sequence_length",
                "model.data.seq_length",
                format!("{other} tokens"),
                format!("the data has sequences of {other} tokens, the model takes {length}"),
            )
            .with("model.encoder_seq_length", format!("{length} tokens"))
            .help("write `seq_length: ${model.encoder_seq_length}`");
    }
    let rows = data.and_then(|data| data.train_ds.as_ref());
    let longer = rows.and_then(|rows| rows.max_seq_length).filter(|rows| *rows > length);
    if let Some(rows) = longer {
        findings
            .error(
                "recipe::sequence_length",
                "model.data.train_ds.max_seq_length",
                format!("{rows} tokens"),
                format!("samples of up to {rows} tokens do not fit into sequences of {length}"),
            )
            .with("model.encoder_seq_length", format!("{length} tokens"))
            .help(format!("set model.data.train_ds.max_seq_length to at most {length}"));
    }
}

fn rotary(model: &Model, findings: &mut Findings) {
    let Some(width) =
        model.head_width().filter(|_| model.positions() == Some(PositionEmbedding::Rope))
    else {
        return;
    };
    let share = model.rotary_percentage.unwrap_or(1.0);
    #[expect(clippy::cast_sign_loss, reason = "the schema keeps the share between 0 and 1")]
    let turned = (width as f64 * share) as usize;
    if turned == 0 || !turned.is_multiple_of(2) {
        findings
            .error(
                "recipe::rotary_width",
                "model.rotary_percentage",
                format!("{turned} of {width} channels"),
                format!(
                    "rotary positions turn pairs of channels, but {} of a head's {width} channels are {turned}",
                    number(share)
                ),
            )
            .with("model.hidden_size", "gives the width of a head")
            .with(HEADS, "gives the width of a head")
            .with("model.kv_channels", "gives the width of a head")
            .help("choose a share that leaves an even number of channels above zero");
    }
}
