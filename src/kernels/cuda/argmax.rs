//! The largest number of each row.

use super::context::{format, of};
use super::{check, ffi, hold, size};
use crate::kernels::Result;
use crate::kernels::device::to_host;
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor};

/// No column, as the kernel says it.
const NONE: u32 = u32::MAX;

/// The column of the largest of the first `columns` numbers of each row.
pub(in crate::kernels) fn forward(
    rows: &Tensor,
    columns: usize,
    forbidden: &[Option<u32>],
) -> Result<Vec<Option<u32>>> {
    let ((count, width), context) = (rows.dims2()?, of(rows)?);
    let forbidden: Vec<u32> = forbidden.iter().map(|column| column.unwrap_or(NONE)).collect();
    let forbidden = context.words(&forbidden)?;
    let found = context.unfilled(count, DType::U32)?;
    let (numbers, left_out, out) = (hold(rows)?, hold(&forbidden)?, hold(&found)?);
    let work = context.work(Part::Head)?;
    let code = ffi::sft_argmax(
        work.stream(),
        format(rows.dtype())?,
        numbers.at(),
        left_out.at(),
        out.at(),
        size(count),
        size(width),
        size(columns),
    );
    check("argmax", code)?;
    drop((out, work));
    let column = |column: u32| (column != NONE).then_some(column);
    Ok(to_host(&found)?.to_vec1::<u32>()?.into_iter().map(column).collect())
}
