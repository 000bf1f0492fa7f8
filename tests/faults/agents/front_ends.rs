//! A notebook front end and an agent in one session at once.

use cob_tests::agents::{Agent, PLENTY, Serve, are_whole, text};
use cob_tests::kernel::Setup;
use serde_json::json;

#[tokio::test]
async fn a_front_end_and_an_agent_share_a_session_and_both_see_everything_in_order() {
    const EACH: usize = 10;
    let serve = Serve::start().await;
    let mut agent = serve.agent("agent").await;
    let session = agent.open().await;
    agent.run(&session, "first", "log = []").await;
    let kernel = Setup::new().server(&serve.server).argument("--session").argument(&session).launch();
    kernel.accepts().await;
    let mut front_end = kernel.client().await;

    let mut follower: Agent = serve.agent("follower").await;
    let followed =
        follower.send("subscribe", json!({ "session_id": session, "from": 2, "credit": PLENTY })).await;
    follower.reply(&followed).await;
    let (mut cells, mut ids) = (Vec::new(), Vec::new());
    for number in 0..EACH {
        ids.push(
            agent
                .execute(
                    &session,
                    &format!("a{number}"),
                    &format!("log.append('a{number}'); print('a', {number})"),
                )
                .await,
        );
        cells.push(front_end.execute(&format!("log.append('f{number}'); print('f', {number})")).await);
    }
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(agent.reply(id).await.content["status"], "ok");
        let events = agent.events(id);
        are_whole(&events);
        assert_eq!(text(&events), format!("a {number}\n"));
    }
    for (number, cell) in cells.iter().enumerate() {
        assert_eq!(front_end.finish(cell).await.ok().stdout(), format!("f {number}\n"));
    }
    // What ran is what the follower saw, in that order, and what the front end was shown of both.
    let (_, events) = agent.run(&session, "log", "print(*log)").await;
    let ran: Vec<String> = text(&events).split_whitespace().map(str::to_owned).collect();
    assert_eq!(ran.len(), 2 * EACH);
    for who in ["a", "f"] {
        let own: Vec<_> = ran.iter().filter(|name| name.starts_with(who)).cloned().collect();
        assert_eq!(own, (0..EACH).map(|number| format!("{who}{number}")).collect::<Vec<_>>());
    }
    let printed = |name: &String| format!("{} {}\n", &name[..1], &name[1..]);
    let wanted: String = ran.iter().map(printed).collect();
    follower.printed(&followed, &wanted).await;
    let last = ran.last().map(printed).unwrap();
    let is_last = |seen: &cob_tests::client::Seen| seen.msg_type == "stream" && seen.text("text") == last;
    front_end.until(is_last).await;
    let shown: String = front_end
        .seen()
        .iter()
        .filter(|seen| seen.msg_type == "stream")
        .map(|seen| seen.text("text"))
        .collect();
    assert!(shown.starts_with(&wanted), "{shown}");

    // Either interrupts what the other runs.
    let id = agent.execute(&session, "loop", "print('on', flush=True)\nwhile True: pass").await;
    agent.printed(&id, "on\n").await;
    front_end.interrupt().await;
    assert_eq!(agent.reply(&id).await.content["ename"], "KeyboardInterrupt");
    let cell = front_end.execute("print('on', flush=True)\nwhile True: pass").await;
    front_end.printed(&cell, "on\n").await;
    agent.ok("interrupt", json!({ "session_id": session })).await;
    front_end.finish(&cell).await.failed("KeyboardInterrupt");

    // The front end goes, and the session stays.
    drop((front_end, kernel));
    let (reply, _) = agent.run(&session, "after", "len(log)").await;
    assert_eq!(reply["status"], "ok");
    drop((agent, follower));
    serve.finish().await;
}

#[tokio::test]
async fn a_front_end_whose_server_was_killed_goes_on_with_the_next_one() {
    let mut serve = Serve::start().await;
    let kernel = Setup::new().server(&serve.server).argument("--session").argument("new").launch();
    kernel.accepts().await;
    let mut front_end = kernel.client().await;
    assert_eq!(front_end.run("6 * 7").await.ok().result(), "42");
    serve.kill().await;
    serve.start_again().await;
    kernel.log_line("attached to session", 1).await.unwrap();
    let mut front_end = kernel.client().await;
    assert_eq!(front_end.run("7 * 8").await.ok().result(), "56");
    drop((front_end, kernel));
    serve.end_unchecked().await;
}
