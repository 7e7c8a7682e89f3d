//! Nodes of one machine that meet, and that do not.

use super::*;

fn meeting(node: usize, port: u16) -> Meeting {
    Meeting {
        place: Place { node, count: 2, devices: 1 },
        host: "127.0.0.1".to_owned(),
        port,
        timeout: Duration::from_secs(5),
        build: "1".to_owned(),
        settings: "lr: 1\nseed: 2\n".to_owned(),
    }
}

/// What both nodes come to when node 1 is changed like this.
fn both(change: impl FnOnce(&mut Meeting)) -> [Result<Arc<Nodes>, Error>; 2] {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (first, mut second) = (meeting(0, port), meeting(1, port));
    change(&mut second);
    let second = thread::spawn(move || second.join(&AtomicBool::new(false)));
    [first.join(&AtomicBool::new(false)), second.join().unwrap()]
}

#[test]
fn nodes_that_agree_exchange_mail_and_leave() {
    let [first, second] = both(|_| {});
    let (first, second) = (first.unwrap(), second.unwrap());
    first.post(1, "a", vec![1, 2]);
    second.post_all("b", vec![3]);
    assert_eq!(second.fetch(0, "a").unwrap(), [1, 2]);
    assert_eq!(first.fetch(1, "b").unwrap(), [3]);
    let other = thread::spawn(move || {
        second.meet().unwrap();
        assert_eq!(second.fetch_unless(0, "a", &AtomicBool::new(false)).unwrap(), None);
        second.close();
    });
    first.meet().unwrap();
    first.close();
    other.join().unwrap();
    assert_eq!(first.failure(), None);
}

#[test]
fn a_failure_is_told_on_every_node_and_so_is_a_lost_connection() {
    let [first, second] = both(|_| {});
    let (first, second) = (first.unwrap(), second.unwrap());
    second.fail("rank 1 of 2 failed: out of memory");
    let told = first.fetch(1, "a").unwrap_err();
    assert!(!told.is_accident);
    assert_eq!(told.to_string(), "node 1: rank 1 of 2 failed: out of memory");
    let [first, second] = both(|_| {});
    let (first, second) = (first.unwrap(), second.unwrap());
    second.break_off("rank 1 of 2 failed: it panicked");
    assert!(first.fetch(1, "a").unwrap_err().is_accident);
    let [first, second] = both(|_| {});
    drop(second.unwrap());
    let told = first.unwrap().fetch(1, "a").unwrap_err();
    assert!(told.is_accident);
    let told = told.to_string();
    assert!(told.contains("node 1: it is lost, and with it rank 1 of 2"), "{told}");
}

#[test]
fn what_is_unlike_is_told_on_both_with_both_values() {
    type Change = fn(&mut Meeting);
    let changes: [(&str, Change); 5] = [
        ("the build is 1 on node 0 and 2 on node 1", |node| node.build = "2".to_owned()),
        ("is `seed: 2` on node 0 and `seed: 3` on node 1", |node| {
            node.settings = "lr: 1\nseed: 3\n".to_owned();
        }),
        ("`(its end)` on node 0 and `more` on node 1", |node| node.settings += "more\n"),
        ("is 1 on node 0 and 4 on node 1", |node| node.place.devices = 4),
        ("two processes say that they are node 2 of 2", |node| node.place.node = 2),
    ];
    for (expected, change) in changes {
        for told in both(change) {
            let told = told.unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
    }
}

#[test]
fn strangers_do_not_disturb_and_an_absent_node_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let alone = Meeting { timeout: Duration::from_millis(300), ..meeting(0, port) };
    let waiting = thread::spawn(move || alone.join(&AtomicBool::new(false)));
    let mut stranger = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let told = waiting.join().unwrap().unwrap_err().to_string();
    assert!(told.contains("node 1 did not come to 127.0.0.1:"), "{told}");
    let nobody = Meeting { timeout: Duration::from_millis(100), ..meeting(1, port) };
    let told = nobody.join(&AtomicBool::new(false)).unwrap_err().to_string();
    assert!(told.contains("node 0 does not answer at 127.0.0.1:"), "{told}");
}
