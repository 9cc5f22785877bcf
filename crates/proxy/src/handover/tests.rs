use super::desk::{Asked, answers, open_desk};
use super::packet::ANSWER_WAIT;
use super::*;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc;

/// Hands one listener over between two ends of this process.
#[test]
fn a_listener_moves_and_a_dead_successor_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("handover.sock");
    assert!(take(&path, "new").unwrap().is_none());
    let desk = open_desk(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (control, mut asked) = mpsc::channel(4);
    let desk = std::thread::spawn(move || desk.serve("old", &AtomicBool::new(false), &control));
    let old = std::thread::spawn(move || {
        let (mut offers, mut abandoned) = (0, 0);
        while let Some(question) = asked.blocking_recv() {
            match question {
                Asked::Offer(answer) => {
                    offers += 1;
                    answer
                        .send(Offered {
                            listeners: vec![listener.try_clone().unwrap()],
                            next_client: 42,
                            sockets: 10,
                            standing: Standing::default(),
                        })
                        .unwrap();
                }
                Asked::Abandoned { .. } => abandoned += 1,
                Asked::Commit { done, .. } => done.send(()).unwrap(),
                // Nobody serves clients here.
                Asked::Give(_) | Asked::Given => break,
            }
        }
        (offers, abandoned)
    });
    drop(take(&path, "first").unwrap().unwrap());
    // This one dies after it has taken the place where successors ask.
    let dying = take(&path, "dying").unwrap().unwrap();
    drop(open_desk(&path).unwrap());
    drop(dying);
    let deadline = std::time::Instant::now() + ANSWER_WAIT;
    while !answers(&path) {
        assert!(
            std::time::Instant::now() < deadline,
            "it is reachable again"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let taken = take(&path, "second").unwrap().unwrap();
    assert_eq!(taken.next_client, 42);
    let moved = taken.listeners[0].try_clone().unwrap();
    taken.commit().unwrap();
    desk.join().unwrap();
    let (offers, abandoned) = old.join().unwrap();
    assert!(offers == 3 && abandoned >= 2, "{offers} {abandoned}");
    assert_eq!(moved.local_addr().unwrap(), address);
    let client = TcpStream::connect(address).unwrap();
    let (_, peer) = moved.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}
