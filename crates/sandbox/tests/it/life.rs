//! Tests start, stop, waiting, and the request log.

use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Options, Sandbox};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{ask, get, sandbox, sweep};

#[tokio::test]
async fn stop_closes_connections_and_frees_the_port() {
    let sandbox = sandbox(1).await;
    let address = sandbox.address();
    sandbox.world().inject(Fault::new(FaultEffect::Hold));
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut held = TcpStream::connect(address).await.unwrap();
    held.write_all(b"GET /api/v1/customers HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    sandbox.until(|world| world.request_count() == 1).await;
    sandbox.stop().await;

    let mut buffer = Vec::new();
    for stream in [&mut idle, &mut held] {
        let _ = stream.read_to_end(&mut buffer).await;
    }
    assert_eq!(buffer, b"", "nothing was answered");
    let options = Options { listen: address, ..Options::default() };
    Sandbox::start(options).await.unwrap().stop().await;
}

#[tokio::test]
async fn dropped_sandbox_stops() {
    let sandbox = sandbox(1).await;
    let mut idle = TcpStream::connect(sandbox.address()).await.unwrap();
    get(&sandbox, "/customers").await;
    drop(sandbox);
    let mut buffer = Vec::new();
    let _ = idle.read_to_end(&mut buffer).await;
    assert_eq!(buffer, b"");
}

#[tokio::test]
async fn address_in_use_is_refused_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let error = Sandbox::start(Options { listen, ..Options::default() }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the sandbox cannot listen on {listen}; choose another address, or port 0 for any free one")
    );
}

#[tokio::test]
async fn request_takes_effect_after_its_client_has_disconnected() {
    let sandbox = sandbox(0).await;
    let hold = sandbox.world().inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    let pending = ask(&sandbox, "POST", "/customers").json(&json!({}));
    tokio::select! {
        _ = pending.send(&sandbox) => panic!("it is held"),
        () = sandbox.until(|world| world.fired(hold) == 1) => {}
    }
    // The end of the connection is before the start of the next one, so the server has noticed it
    // after this.
    get(&sandbox, "/events").await;
    sandbox.world().remove_fault(hold);
    sandbox.until(|world| world.creates() == 1).await;
}

#[tokio::test]
async fn latency_applies_to_every_request() {
    let sandbox = sandbox(0).await;
    sandbox.world().set_latency(Duration::from_millis(30));
    for path in ["/customers", "/nowhere"] {
        let started = tokio::time::Instant::now();
        get(&sandbox, path).await;
        assert!(started.elapsed() >= Duration::from_millis(30));
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let sandbox = sandbox(0).await;
    let mut stream = TcpStream::connect(sandbox.address()).await.unwrap();
    let request = b"GET /api/v1/customers HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..50 {
        stream.write_all(request).await.unwrap();
    }
    sandbox.until(|world| world.request_count() == 50).await;
}

#[tokio::test]
async fn request_is_logged_completely() {
    let sandbox = sandbox(0).await;
    let body = json!({"email": "a@example.jp"});
    ask(&sandbox, "POST", "/customers?x=1").header("X-Trace", "7").json(&body).send(&sandbox).await;
    get(&sandbox, "/customers?page=3").await;
    get(&sandbox, "/customers").await;
    {
        let world = sandbox.world();
        let [create, third, first] = world.requests() else { panic!("{:?}", world.requests()) };
        assert_eq!((create.method.as_str(), create.path.as_str()), ("POST", "/api/v1/customers"));
        assert_eq!((create.query.as_str(), create.header("x-trace")), ("x=1", Some("7")));
        assert_eq!((create.body.clone(), create.status), (body.to_string(), Some(200)));
        assert_eq!(create.at.to_string(), "2026-06-01T00:00:00Z");
        assert_eq!((create.page, third.page, first.page), (None, Some(3), Some(1)));
    }
    sandbox.world().clear_requests();
    let world = sandbox.world();
    assert!(world.requests().is_empty());
    assert_eq!(world.request_count(), 3);
}

#[tokio::test]
async fn trickle_keeps_the_list_correct() {
    let sandbox = sandbox(50).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut seen = [0; 3];
    for _ in 0..200 {
        let change = sandbox.world().trickle(&mut rng);
        let id = change["id"].as_str().unwrap();
        let now = sandbox.world().get(id);
        match change["op"].as_str().unwrap() {
            "create" => seen[0] += 1,
            "update" => seen[1] += 1,
            "delete" => {
                seen[2] += 1;
                assert_eq!(now, None);
                continue;
            }
            other => panic!("{other}"),
        }
        assert_eq!(now.as_ref(), Some(&change["customer"]));
    }
    assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
    assert_eq!(sweep(&sandbox, 100).await.len(), sandbox.world().len());
}
