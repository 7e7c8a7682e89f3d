use candle_core::{DType, Device, Error, Result, Tensor};
use sft_run::base::seed::Stream;
use sft_run::kernels::device;
use sft_run::parallel::group::{Collective, Group, Like, Reduction, Route};
use sft_run::parallel::mesh::Mesh;
use sft_run::parallel::ranks::{Failure, run};
use sft_run::spec::optimization::Degrees;
use std::ops::Range;
use std::time::Duration;

/// `data` × `pipeline` × `tensor` ranks.
fn degrees(data: usize, pipeline: usize, tensor: usize) -> Degrees {
    Degrees { data, pipeline, virtual_pipeline: 1, tensor, sequence: false }
}

/// Devices that take part: a group is no group without two.
fn ranks() -> usize {
    let devices = device::count();
    assert!(devices >= 2, "{devices} devices here: these tests need two");
    devices.min(4)
}

/// Which of a rank's groups.
type Axis = fn(&Mesh) -> &dyn Group;

/// Runs `work` on all ranks, on the three axes in turn.
fn on_every_axis(
    work: impl Fn(&dyn Group, &Device) -> Result<()> + Sync,
) -> std::result::Result<(), Box<Failure<Error>>> {
    let ranks = ranks();
    let axes: [(Degrees, Axis); 3] = [
        (degrees(ranks, 1, 1), |mesh| &*mesh.data),
        (degrees(1, ranks, 1), |mesh| &*mesh.pipeline),
        (degrees(1, 1, ranks), |mesh| &*mesh.tensor),
    ];
    for (degrees, group) in axes {
        run(&degrees, |mesh| work(group(&mesh), &device::gpu(mesh.rank)?))?;
    }
    Ok(())
}

const LENGTH: usize = 48;

/// Numbers of rank `rank` that have a whole sum in every format.
fn numbers(rank: usize) -> Vec<f32> {
    let stream = Stream::new(5, &format!("rank {rank}"));
    (0..LENGTH as u64).map(|at| (stream.normal(at) * 8.0).round() as f32).collect()
}

fn tensor(rank: usize, device: &Device) -> Result<Tensor> {
    Tensor::new(numbers(rank), device)
}

fn over_ranks(ranks: usize, join: fn(f32, f32) -> f32) -> Vec<f32> {
    let all: Vec<_> = (0..ranks).map(numbers).collect();
    (0..LENGTH).map(|at| all.iter().map(|own| own[at]).reduce(join).unwrap()).collect()
}

fn sum(ranks: usize) -> Vec<f32> {
    over_ranks(ranks, |a, b| a + b)
}

#[test]
fn every_call_gives_what_it_says() {
    on_every_axis(|group, device| {
        let (rank, size) = (group.rank(), group.size());
        let x = tensor(rank, device)?;
        let piece = rank * LENGTH / size..(rank + 1) * LENGTH / size;
        assert_eq!(group.all_reduce(&x, Reduction::Sum)?.to_vec1::<f32>()?, sum(size));
        let max = group.all_reduce(&x, Reduction::Max)?.to_vec1::<f32>()?;
        assert_eq!(max, over_ranks(size, f32::max));
        let all = group.all_gather(&x.reshape((2, LENGTH / 2))?)?;
        assert_eq!(all.dims(), [2 * size, LENGTH / 2]);
        let every: Vec<f32> = (0..size).flat_map(numbers).collect();
        assert_eq!(all.flatten_all()?.to_vec1::<f32>()?, every);
        assert_eq!(group.reduce_scatter(&x)?.to_vec1::<f32>()?, sum(size)[piece]);
        let last = group.broadcast(&x, size - 1)?.to_vec1::<f32>()?;
        assert_eq!(last, numbers(size - 1));
        // Numbers of the host meet on the host.
        assert_eq!(group.sum_numbers(&[1.0])?, [size as f64]);
        let wide = Tensor::new(&[rank as f64], device)?;
        let wide = group.all_reduce(&wide, Reduction::Sum)?.to_vec1::<f64>()?;
        assert_eq!(wide, [(size * (size - 1) / 2) as f64]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn halves_are_exchanged_as_they_are() {
    on_every_axis(|group, device| {
        let half = tensor(group.rank(), &Device::Cpu)?.to_dtype(DType::BF16)?.to_device(device)?;
        let total = group.all_reduce(&half, Reduction::Sum)?.to_device(&Device::Cpu)?;
        assert_eq!(total.to_dtype(DType::F32)?.to_vec1::<f32>()?, sum(group.size()));
        Ok(())
    })
    .unwrap();
}

#[test]
fn calls_in_place_change_the_part_that_they_are_given() {
    on_every_axis(|group, device| {
        let (rank, size) = (group.rank(), group.size());
        let buffer = || Tensor::new([numbers(9), numbers(rank), numbers(9)].concat(), device);
        let part = |buffer: &Tensor| buffer.narrow(0, LENGTH, LENGTH);
        let (whole, scattered, gathered) = (buffer()?, buffer()?, buffer()?);
        // Begun together, waited for in another order.
        let first = group.start(Collective::AllReduceInPlace(Reduction::Sum), &part(&whole)?)?;
        let second = group.start(Collective::ReduceScatterInPlace, &part(&scattered)?)?;
        let third = group.start(Collective::AllGatherInPlace, &part(&gathered)?)?;
        third.wait()?;
        first.wait()?;
        second.wait()?;
        let (nine, piece) = (numbers(9), LENGTH / size);
        assert_eq!(whole.to_vec1::<f32>()?, [nine.clone(), sum(size), nine.clone()].concat());
        let pieces = (0..size).flat_map(|from| numbers(from)[from * piece..][..piece].to_vec());
        let expected = [nine.clone(), pieces.collect(), nine.clone()].concat();
        assert_eq!(gathered.to_vec1::<f32>()?, expected);
        let scattered = scattered.to_vec1::<f32>()?;
        let own = rank * piece..(rank + 1) * piece;
        assert_eq!(scattered[LENGTH..][own.clone()], sum(size)[own]);
        assert_eq!((&scattered[..LENGTH], &scattered[2 * LENGTH..]), (&nine[..], &nine[..]));
        Ok(())
    })
    .unwrap();
}

/// A call beside the kernels between two that they wait for, which read what the one before gave.
#[test]
fn calls_beside_work_and_calls_at_once_come_in_their_order() {
    on_every_axis(|group, device| {
        let (size, x) = (group.size(), tensor(group.rank(), device)?);
        let sum_of = |group: &dyn Group, x: &Tensor| group.all_reduce(x, Reduction::Sum);
        let before = sum_of(group, &x)?;
        let beside = group.start(Collective::AllReduce(Reduction::Sum), &before)?;
        let after = sum_of(group, &x)?;
        let beside = beside.wait()?;
        let expected: Vec<f32> = sum(size).iter().map(|sum| sum * size as f32).collect();
        assert_eq!(beside.to_vec1::<f32>()?, expected);
        assert_eq!(after.to_vec1::<f32>()?, sum(size));
        Ok(())
    })
    .unwrap();
}

/// Several calls that begin as one, on parts of one buffer.
#[test]
fn calls_that_begin_together_are_apart() {
    const PARTS: usize = 10;
    on_every_axis(|group, device| {
        let (rank, size) = (group.rank(), group.size());
        let each = |part: usize| numbers(100 * part + rank);
        let buffer = || Tensor::new((0..PARTS).flat_map(each).collect::<Vec<_>>(), device);
        let (gathered, summed) = (buffer()?, buffer()?);
        let views = |buffer: &Tensor, parts: Range<usize>| {
            let view = |part| buffer.narrow(0, part * LENGTH, LENGTH);
            parts.map(view).collect::<Result<Vec<_>>>()
        };
        let mut pending =
            group.start_all(Collective::AllGatherInPlace, &views(&gathered, 0..7)?)?;
        pending
            .extend(group.start_all(Collective::AllGatherInPlace, &views(&gathered, 7..PARTS)?)?);
        let sum = Collective::AllReduceInPlace(Reduction::Sum);
        let sums = group.start_all(sum, &views(&summed, 0..PARTS)?)?;
        assert_eq!((pending.len(), sums.len()), (PARTS, PARTS));
        assert!(group.start_all(sum, &[])?.is_empty());
        // The last first.
        sums.into_iter().rev().chain(pending).try_for_each(|call| call.wait().map(|_| ()))?;
        let piece = LENGTH / size;
        let (gathered, summed) = (gathered.to_vec1::<f32>()?, summed.to_vec1::<f32>()?);
        for part in 0..PARTS {
            let own = part * LENGTH..(part + 1) * LENGTH;
            let of_rank = |from: usize| numbers(100 * part + from);
            let pieces = (0..size).flat_map(|from| of_rank(from)[from * piece..][..piece].to_vec());
            assert_eq!(gathered[own.clone()], pieces.collect::<Vec<_>>(), "part {part}");
            let sums = (0..LENGTH).map(|at| (0..size).map(|from| of_rank(from)[at]).sum::<f32>());
            assert_eq!(summed[own], sums.collect::<Vec<_>>(), "part {part}");
        }
        Ok(())
    })
    .unwrap();
}

/// Memory given back while calls are under way goes to others only when they are done.
#[test]
fn what_is_dropped_is_read_to_the_end() {
    on_every_axis(|group, device| {
        for turn in 0..20 {
            let pending = group
                .start(Collective::AllReduce(Reduction::Sum), &tensor(group.rank(), device)?)?;
            let other = tensor(turn, device)?;
            let total = pending.wait()?;
            drop(other);
            assert_eq!(total.to_vec1::<f32>()?, sum(group.size()), "turn {turn}");
            // Nobody waits for this one.
            drop(group.start(Collective::AllReduce(Reduction::Sum), &tensor(turn, device)?)?);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn messages_arrive_in_order_by_tag_and_block_nobody() {
    run(&degrees(1, ranks(), 1), |mesh: Mesh| {
        let (group, device) = (&mesh.pipeline, device::gpu(mesh.rank)?);
        let (rank, size) = (group.rank(), group.size());
        let (next, before) = ((rank + 1) % size, (rank + size - 1) % size);
        let forth = Route::chain(size, true, 1);
        let back = forth.iter().map(|route| route.back(3)).collect::<Vec<_>>();
        group.connect(&device, &[forth, back, Route::chain(size, true, 2)].concat())?;
        let like = Like::of(&tensor(rank, &device)?);
        // All send around the ring, both ways, before anybody receives.
        for turn in 0..5 {
            group.send(&tensor(10 * rank + turn, &device)?, next, 1)?;
            group.send(&tensor(100 * rank + turn, &device)?, before, 3)?;
        }
        group.send(&tensor(99, &device)?, next, 2)?;
        let other = group.receive(&like, before, 2)?;
        assert_eq!(other.to_vec1::<f32>()?, numbers(99));
        for turn in 0..5 {
            let forth = group.receive(&like, before, 1)?;
            let back = group.receive(&like, next, 3)?;
            assert_eq!(forth.to_vec1::<f32>()?, numbers(10 * before + turn));
            assert_eq!(back.to_vec1::<f32>()?, numbers(100 * next + turn));
        }
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn a_pipeline_sends_more_than_it_keeps() {
    run(&degrees(1, 2, 1), |mesh: Mesh| {
        let (group, device) = (&mesh.pipeline, device::gpu(mesh.rank)?);
        let like = Like::of(&tensor(0, &device)?);
        group.connect(&device, &Route::chain(2, false, 0))?;
        for turn in 0..50 {
            if group.rank() == 0 {
                group.send(&tensor(turn, &device)?, 1, 0)?;
            } else {
                let x = group.receive(&like, 0, 0)?;
                assert_eq!(x.to_vec1::<f32>()?, numbers(turn), "turn {turn}");
            }
        }
        Ok::<_, Error>(())
    })
    .unwrap();
}

/// Two stages that take turns, of which the second brings numbers to the host while the first waits.
#[test]
fn stages_that_read_what_they_got_do_not_wait_in_a_circle() {
    const MICRO_BATCHES: usize = 6;
    run(&degrees(1, 2, 1), |mesh: Mesh| {
        let (group, device) = (&mesh.pipeline, device::gpu(mesh.rank)?);
        let like = Like::of(&tensor(0, &device)?);
        let there = Route::chain(2, false, 0);
        let back = there.iter().map(|route| route.back(1)).collect::<Vec<_>>();
        group.connect(&device, &[there, back].concat())?;
        if group.rank() == 0 {
            group.send(&tensor(0, &device)?, 1, 0)?;
        }
        for turn in 0..MICRO_BATCHES {
            if group.rank() == 1 {
                let x = group.receive(&like, 0, 0)?;
                assert_eq!(x.to_vec1::<f32>()?, numbers(turn), "turn {turn}");
                group.send(&x, 0, 1)?;
                continue;
            }
            if turn + 1 < MICRO_BATCHES {
                group.send(&tensor(turn + 1, &device)?, 1, 0)?;
            }
            assert_eq!(group.receive(&like, 1, 1)?.to_vec1::<f32>()?, numbers(turn));
        }
        Ok::<_, Error>(())
    })
    .unwrap();
}

/// Runs `wait` on all ranks but one, which fails meanwhile: all must end, and that rank is told.
fn ends(what: &str, wait: fn(&Mesh, &Device) -> Result<()>) {
    let ranks = ranks();
    for bad in 0..ranks {
        let failure = run(&degrees(1, ranks, 1), |mesh| {
            let device = device::gpu(mesh.rank)?;
            // Once together, so that the communicators are there.
            let x = tensor(mesh.rank, &device)?;
            mesh.pipeline.all_reduce(&x, Reduction::Sum)?.to_vec1::<f32>()?;
            let forth = Route::chain(ranks, true, 0);
            let back = forth.iter().map(|route| route.back(1)).collect::<Vec<_>>();
            mesh.pipeline.connect(&device, &[forth, back].concat())?;
            if mesh.rank == bad {
                std::thread::sleep(Duration::from_millis(50));
                candle_core::bail!("no more")
            }
            wait(&mesh, &device)
        });
        let failure = failure.unwrap_err();
        assert_eq!(failure.rank, bad, "{what}: {failure}: {}", failure.cause);
        assert!(failure.cause.to_string().contains("no more"), "{what}: {}", failure.cause);
    }
}

#[test]
fn a_failing_rank_leaves_nobody_waiting() {
    ends("on the device", |mesh, device| {
        let sum = mesh.pipeline.all_reduce(&tensor(0, device)?, Reduction::Sum)?;
        // What comes is not a sum: the next call says that it is given up.
        sum.to_vec1::<f32>()?;
        mesh.pipeline.barrier()
    });
    ends("for a new channel", |mesh, device| {
        mesh.pipeline.connect(device, &Route::chain(mesh.degrees.pipeline, true, 2))?;
        mesh.pipeline.barrier()
    });
    ends("for a new communicator", |mesh, device| {
        mesh.world.all_reduce(&tensor(0, device)?, Reduction::Sum)?;
        mesh.world.barrier()
    });
    ends("for a message", |mesh, device| {
        let like = Like::of(&tensor(0, device)?);
        let from = (mesh.rank + 1) % mesh.degrees.pipeline;
        mesh.pipeline.receive(&like, from, 1)?.to_vec1::<f32>()?;
        mesh.pipeline.barrier()
    });
    ends("for a receiver", |mesh, device| {
        let to = (mesh.rank + 1) % mesh.degrees.pipeline;
        for _ in 0..100 {
            mesh.pipeline.send(&tensor(0, device)?, to, 0)?;
        }
        mesh.pipeline.barrier()
    });
}
