//! A host whose network lets no UDP through, with the real programs.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{DEADLINE, Scene};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// An address at which TCP is let through to another, and UDP is not.
fn tcp_only(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    address
}

#[test]
fn ht_30_an_agent_without_udp_gets_releases_all_the_same() {
    let scene = Scene::new();
    let (_origin, address, https) = scene.relay_with("origin", &[], "https = '127.0.0.1:0'\n");
    scene.publish(&address);
    let agent = scene.agent(&tcp_only(https.unwrap().parse().unwrap()).to_string());
    // QUIC is tried first, for as long as a handshake may take.
    let fallback = agent.wait_within("fallback", DEADLINE * 2);
    assert!(fallback["reason"].as_str().unwrap().contains("is UDP blocked?"), "{fallback}");
    let connected = agent.wait_for("connected");
    assert!(connected["address"].as_str().unwrap().starts_with("https://"), "{connected}");
    assert_eq!(agent.wait_for("active")["release"], 1);
    let file = "base/app/https.conf";
    fs::create_dir_all(scene.source().join(file).parent().unwrap()).unwrap();
    fs::write(scene.source().join(file), "over = https\n").unwrap();
    scene.publish(&address);
    assert_eq!(agent.wait_for("active")["release"], 2);
    assert_eq!(fs::read_to_string(scene.path("live/current/app/https.conf")).unwrap(), "over = https\n");
}
