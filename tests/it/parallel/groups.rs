use super::degrees;
use candle_core::{DType, Device, Error, Result, Tensor};
use sft_run::base::seed::Stream;
use sft_run::parallel::group::{Collective, Group, Like, Reduction};
use sft_run::parallel::mesh::Mesh;
use sft_run::parallel::ranks::{Cause, Failure, run};
use std::time::Duration;

/// Runs `work` on four ranks that stand on the tensor axis.
fn four<R: Send>(
    work: impl Fn(&dyn Group) -> Result<R> + Sync,
) -> std::result::Result<Vec<R>, Box<Failure<Error>>> {
    run(&degrees(1, 1, 4), |mesh| work(&*mesh.tensor))
}

/// Rank `rank`'s eight numbers.
fn numbers(rank: usize) -> Vec<f32> {
    let stream = Stream::new(5, &format!("rank {rank}"));
    (0..8).map(|at| stream.normal(at) as f32).collect()
}

fn tensor(rank: usize) -> Tensor {
    Tensor::new(numbers(rank), &Device::Cpu).unwrap()
}

/// The sum in the order of the ranks.
fn sum() -> Vec<f32> {
    (0..8).map(|at| (0..4).map(|rank| numbers(rank)[at]).fold(0.0, |sum, x| sum + x)).collect()
}

#[test]
fn every_collective_gives_what_it_says() {
    let results = four(|group| {
        let (rank, x) = (group.rank(), tensor(group.rank()));
        let sum = group.all_reduce(&x, Reduction::Sum)?.to_vec1::<f32>()?;
        let max = group.all_reduce(&x, Reduction::Max)?.to_vec1::<f32>()?;
        let all = group.all_gather(&x.reshape((2, 4))?)?;
        assert_eq!(all.dims(), [8, 4]);
        let piece = group.reduce_scatter(&x)?.to_vec1::<f32>()?;
        let third = group.broadcast(&x, 2)?.to_vec1::<f32>()?;
        group.barrier()?;
        assert_eq!(group.sum_numbers(&[rank as f64, 1.0])?, [6.0, 4.0]);
        Ok((sum, max, all.flatten_all()?.to_vec1::<f32>()?, piece, third))
    })
    .unwrap();
    let all: Vec<f32> = (0..4).flat_map(numbers).collect();
    let max = |at: usize| (0..4).map(|rank| numbers(rank)[at]).fold(f32::MIN, f32::max);
    for (rank, result) in results.into_iter().enumerate() {
        assert_eq!(result.0, sum());
        assert_eq!(result.1, (0..8).map(max).collect::<Vec<_>>());
        assert_eq!(result.2, all);
        assert_eq!(result.3, sum()[2 * rank..2 * rank + 2]);
        assert_eq!(result.4, numbers(2));
    }
}

#[test]
fn sums_do_not_depend_on_who_comes_first() {
    for late in 0..4 {
        let results = four(|group| {
            if group.rank() == late {
                std::thread::sleep(Duration::from_millis(20));
            }
            group.all_reduce(&tensor(group.rank()), Reduction::Sum)?.to_vec1::<f32>()
        });
        for result in results.unwrap() {
            assert_eq!(result, sum());
        }
    }
}

#[test]
fn collectives_in_place_change_the_part_that_they_are_given() {
    let results = four(|group| {
        let rank = group.rank();
        let buffer = || Tensor::cat(&[tensor(9), tensor(rank), tensor(9)], 0);
        let (whole, scattered, gathered) = (buffer()?, buffer()?, buffer()?);
        // Begun together, waited for in another order.
        let first =
            group.start(Collective::AllReduceInPlace(Reduction::Sum), &whole.narrow(0, 8, 8)?)?;
        let second = group.start(Collective::ReduceScatterInPlace, &scattered.narrow(0, 8, 8)?)?;
        let third = group.start(Collective::AllGatherInPlace, &gathered.narrow(0, 8, 8)?)?;
        third.wait()?;
        first.wait()?;
        second.wait()?;
        let values = |x: Tensor| x.to_vec1::<f32>();
        Ok((values(whole)?, values(scattered)?, values(gathered)?))
    })
    .unwrap();
    let pieces: Vec<f32> =
        (0..4).flat_map(|rank| numbers(rank)[2 * rank..2 * rank + 2].to_vec()).collect();
    for (rank, (whole, scattered, gathered)) in results.into_iter().enumerate() {
        assert_eq!(whole, [numbers(9), sum(), numbers(9)].concat());
        let piece = 2 * rank..2 * rank + 2;
        assert_eq!(scattered[8..16][piece.clone()], sum()[piece]);
        assert_eq!((&scattered[..8], &scattered[16..]), (&numbers(9)[..], &numbers(9)[..]));
        assert_eq!(gathered, [numbers(9), pieces.clone(), numbers(9)].concat());
    }
}

#[test]
fn halves_are_added_in_f32() {
    // In bf16, 256 + 1 is 256: only a wider sum sees the three ones.
    let results = four(|group| {
        let value = if group.rank() == 0 { 256.0f32 } else { 1.0 };
        let x = Tensor::new(&[value], &Device::Cpu)?.to_dtype(DType::BF16)?;
        group.all_reduce(&x, Reduction::Sum)?.to_dtype(DType::F32)?.to_vec1::<f32>()
    });
    for result in results.unwrap() {
        assert_eq!(result, [260.0]);
    }
}

#[test]
fn messages_arrive_in_order_by_tag() {
    run(&degrees(1, 4, 1), |mesh: Mesh| {
        let group = &mesh.pipeline;
        let (rank, next, before) = (group.rank(), (group.rank() + 1) % 4, (group.rank() + 3) % 4);
        let like = Like::of(&tensor(rank));
        for turn in 0..3 {
            group.send(&tensor(10 * rank + turn), next, 1)?;
        }
        group.send(&tensor(99), next, 2)?;
        let other = group.receive(&like, before, 2)?;
        assert_eq!(other.to_vec1::<f32>()?, numbers(99));
        for turn in 0..3 {
            let x = group.receive(&like, before, 1)?;
            assert_eq!(x.to_vec1::<f32>()?, numbers(10 * before + turn));
        }
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn a_mesh_has_the_groups_of_its_axes() {
    let layout = degrees(2, 2, 2);
    let meshes = run(&layout, |mesh| {
        let rank = mesh.rank as f64;
        let sums = [&mesh.world, &mesh.tensor, &mesh.data, &mesh.pipeline]
            .map(|group| group.sum_numbers(&[rank]).unwrap()[0]);
        let ends = mesh.embedding.as_ref().map(|group| group.sum_numbers(&[rank]).unwrap()[0]);
        Ok::<_, Error>((mesh.at, sums, ends))
    })
    .unwrap();
    let (at, sums, ends) = meshes[5];
    assert_eq!((at.tensor, at.data, at.pipeline), (1, 0, 1));
    // 0 to 7; 4 and 5; 5 and 7; 1 and 5.
    assert_eq!((sums, ends), ([28.0, 9.0, 12.0, 6.0], Some(6.0)));
}

/// The failure of four ranks that do `work` names `rank` and says `message`.
fn fails(rank: Option<usize>, message: &str, work: impl Fn(&dyn Group) -> Result<()> + Sync) {
    let failure = four(work).unwrap_err();
    let cause = failure.cause.to_string();
    assert!(cause.contains(message), "{failure}: {cause}");
    assert!(rank.is_none_or(|rank| rank == failure.rank), "{failure}: {cause}");
}

#[test]
fn the_first_failure_ends_every_wait() {
    for bad in 0..4 {
        fails(Some(bad), "no more", |group| {
            for turn in 0..10 {
                if turn == 5 && group.rank() == bad {
                    std::thread::sleep(Duration::from_millis(10));
                    candle_core::bail!("no more")
                }
                group.barrier()?;
            }
            Ok(())
        });
        let failure = four(|group| {
            group.barrier()?;
            assert_ne!(group.rank(), bad, "rank {bad} panics");
            group.receive(&Like::of(&tensor(0)), bad, 0).map(|_| ())
        });
        let failure = failure.unwrap_err();
        assert_eq!(failure.rank, bad);
        assert!(matches!(failure.cause, Cause::Panic(text) if text.contains("panics")));
    }
}

#[test]
fn collectives_that_do_not_fit_are_named() {
    fails(None, "AllGather of F32 [8]", |group| {
        let x = tensor(0);
        if group.rank() == 2 { group.all_gather(&x) } else { group.all_reduce(&x, Reduction::Sum) }
            .map(|_| ())
    });
    fails(None, "AllReduce(Sum) of F32 [4]", |group| {
        let x = tensor(0).narrow(0, 0, if group.rank() == 1 { 4 } else { 8 })?;
        group.all_reduce(&x, Reduction::Sum).map(|_| ())
    });
    fails(None, "cannot cut [3] into 4", |group| {
        group.reduce_scatter(&tensor(0).narrow(0, 0, 3)?).map(|_| ())
    });
    fails(None, "contiguous", |group| {
        group.all_gather(&tensor(0).reshape((2, 4))?.t()?).map(|_| ())
    });
    fails(None, "rank 4 is not in a group of 4", |group| {
        group.broadcast(&tensor(0), 4).map(|_| ())
    });
    fails(None, "expects F32 [8]", |group| {
        group.send(&tensor(0).narrow(0, 0, 4)?, (group.rank() + 1) % 4, 0)?;
        group.receive(&Like::of(&tensor(0)), (group.rank() + 3) % 4, 0).map(|_| ())
    });
}

#[test]
fn ranks_that_wait_for_each_other_are_told_so() {
    // Rank 3 leaves early; then two groups are entered in opposite orders.
    fails(None, "every rank waits for another", |group| {
        if group.rank() == 3 { Ok(()) } else { group.barrier() }
    });
    let failure = run(&degrees(2, 1, 2), |mesh| {
        let (first, second) =
            if mesh.rank < 2 { (&mesh.tensor, &mesh.data) } else { (&mesh.data, &mesh.tensor) };
        let odd = mesh.rank % 2 == 1;
        if odd {
            second.barrier()?;
        } else {
            first.barrier()?;
        }
        if odd { first.barrier() } else { second.barrier() }
    });
    let text = failure.unwrap_err().cause.to_string();
    assert!(text.contains("every rank waits for another"), "{text}");
}
