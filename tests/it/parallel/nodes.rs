use super::degrees;
use candle_core::{DType, Device, Error, Result, Tensor};
use sft_run::base::seed::Stream;
use sft_run::parallel::group::{Collective, Group, Like, Reduction};
use sft_run::parallel::mesh::Mesh;
use sft_run::parallel::nodes::rendezvous::Meeting;
use sft_run::parallel::nodes::{Nodes, Place};
use sft_run::parallel::ranks::{Cause, Failure, run, run_on};
use sft_run::spec::optimization::Degrees;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

/// Two nodes of two ranks, each on a thread, which do `work`.
fn on_two_nodes<R: Send>(timeout: Duration, work: impl Fn(&Arc<Nodes>) -> R + Sync) -> [R; 2] {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let one = |node| {
        let meeting = Meeting {
            place: Place { node, count: 2, devices: 2 },
            host: "localhost".to_owned(),
            port,
            timeout,
            build: "1".to_owned(),
            settings: String::new(),
        };
        let nodes = meeting.join(&AtomicBool::new(false)).unwrap();
        let result = work(&nodes);
        nodes.close();
        result
    };
    thread::scope(|scope| {
        let nodes = [0, 1].map(|node| scope.spawn(move || one(node)));
        nodes.map(|node| node.join().unwrap())
    })
}

fn tensor(rank: usize, dtype: DType) -> Result<Tensor> {
    let stream = Stream::new(5, &format!("rank {rank}"));
    let numbers: Vec<f32> = (0..16).map(|at| stream.normal(at) as f32).collect();
    Tensor::from_vec(numbers, (8, 2), &Device::Cpu)?.to_dtype(dtype)
}

/// What a rank gets of every call of a group, as the bits of its numbers.
fn of_group(group: &dyn Group, rank: usize, dtype: DType) -> Result<Vec<u64>> {
    let x = || tensor(rank, dtype);
    let mut results = vec![
        group.all_reduce(&x()?, Reduction::Sum)?,
        group.all_reduce(&x()?, Reduction::Max)?,
        group.all_gather(&x()?)?,
        group.reduce_scatter(&x()?)?,
        group.broadcast(&x()?, group.size() - 1)?,
    ];
    // Begun together, waited for in another order.
    let begun = [
        Collective::AllReduceInPlace(Reduction::Sum),
        Collective::AllGatherInPlace,
        Collective::ReduceScatterInPlace,
    ]
    .map(|call| x().and_then(|x| group.start(call, &x)));
    for pending in begun.into_iter().rev() {
        results.push(pending?.wait()?);
    }
    // What reduce-scatter leaves of the other pieces means nothing.
    let piece = 8 / group.size();
    if let Some(scattered) = results.get_mut(5) {
        *scattered = scattered.narrow(0, group.rank() * piece, piece)?;
    }
    let (size, at) = (group.size(), group.rank());
    for tag in [1, 2, 1] {
        group.send(&(x()? * f64::from(tag as u32))?, (at + 1) % size, tag)?;
    }
    for tag in [2, 1, 1] {
        results.push(group.receive(&Like::of(&x()?), (at + size - 1) % size, tag)?);
    }
    group.barrier()?;
    let mut bits = Vec::new();
    for result in results {
        let wide = result.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        bits.extend(wide.into_iter().map(f64::to_bits));
    }
    Ok(bits)
}

/// What a rank gets in all its groups.
fn everything(mesh: &Mesh) -> Result<Vec<u64>> {
    let mut bits = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        for group in [&mesh.world, &mesh.tensor, &mesh.pipeline, &mesh.data] {
            if group.size() > 1 {
                bits.extend(of_group(&**group, mesh.rank, dtype)?);
            }
        }
    }
    Ok(bits)
}

#[test]
fn every_call_gives_the_bits_of_one_process() {
    let layouts = [degrees(2, 1, 2), degrees(1, 2, 2), degrees(1, 1, 4), degrees(2, 2, 1)];
    let alone: Vec<_> =
        layouts.iter().map(|layout| run(layout, |mesh| everything(&mesh)).unwrap()).collect();
    // One after the other over the same connections, as trainings of one run are.
    let [first, second] = on_two_nodes(Duration::from_mins(1), |nodes| {
        let on = |layout: &Degrees| run_on(Some(nodes), layout, |mesh| everything(&mesh)).unwrap();
        layouts.iter().map(on).collect::<Vec<_>>()
    });
    for ((alone, first), second) in alone.into_iter().zip(first).zip(second) {
        assert_eq!((first.len(), second.len()), (2, 2));
        assert!(alone == [first, second].concat());
    }
}

fn told(failure: &Failure<Error>) -> String {
    format!("{failure}: {}", failure.cause)
}

#[test]
fn a_rank_that_does_not_come_ends_all_nodes_and_is_named() {
    let results = on_two_nodes(Duration::from_secs(2), |nodes| {
        run_on(Some(nodes), &degrees(4, 1, 1), |mesh| {
            if mesh.rank == 3 {
                thread::sleep(Duration::from_millis(4500));
            }
            mesh.world.barrier()
        })
    });
    for result in results {
        let failure = result.unwrap_err();
        assert!(matches!(failure.cause, Cause::Node(_)), "{failure:?}");
        let told = told(&failure);
        assert!(told.contains("nothing has come on for 2 s"), "{told}");
        let named = ["to which rank 3 did not come", "rank 3 computes"];
        assert!(named.iter().any(|name| told.contains(name)), "{told}");
    }
}

#[test]
fn work_that_goes_on_is_waited_for() {
    let results = on_two_nodes(Duration::from_secs(2), |nodes| {
        run_on(Some(nodes), &degrees(4, 1, 1), |mesh| {
            for _ in 0..if mesh.rank == 3 { 40 } else { 0 } {
                thread::sleep(Duration::from_millis(100));
                nodes.work_goes_on();
            }
            mesh.world.barrier()
        })
    });
    for result in results {
        assert_eq!(result.unwrap().len(), 2);
    }
}

#[test]
fn the_first_failure_is_told_on_every_node() {
    let results = on_two_nodes(Duration::from_mins(1), |nodes| {
        run_on(Some(nodes), &degrees(2, 1, 2), |mesh| {
            mesh.world.barrier()?;
            match mesh.rank {
                2 => Err(Error::Msg("out of memory".to_owned())),
                _ => mesh.world.barrier(),
            }
        })
    });
    let [first, second] = results.map(|result| told(&result.unwrap_err()));
    assert!(
        first.contains("node 1: rank 2 of 4 failed (data 1, tensor 0): out of memory"),
        "{first}"
    );
    assert!(second.contains("rank 2 of 4 failed (data 1, tensor 0): out of memory"), "{second}");
}
