//! Isolated code has power over its own processes, and over no others.

use cob_protocol::message::Channel;
use cob_tests::kernel::Setup;
use cob_tests::server::TestServer;

/// Whom it can reach with a signal, of those named.
const REACH: &str = "\
import os
def reach(pid):
    try:
        os.kill(pid, 0)
        return 'reached'
    except PermissionError:
        return 'refused'
";

#[tokio::test]
async fn isolated_code_cannot_signal_the_kernel_the_server_or_a_zygote() {
    let server = TestServer::start().await;
    for cold in [false, true] {
        let mut setup = Setup::new().server(&server).argument("--isolated");
        if cold {
            setup = setup.argument("--cold");
        }
        // The first isolated session of a server makes its environment warm for the next.
        let first = setup.start().await;
        drop(first);
        // Two for kernels like ours, two for isolated ones.
        server.holds(4, 0).await;
        let kernel = setup.start().await;
        assert_eq!(kernel.worker_from(0).await.1 == "Cold", cold);
        let mut client = kernel.client().await;
        let info = client.ask(Channel::Control, "kernel_info_request").await.ok();
        let confinement = info.reply["cob"]["confinement"].as_array().cloned().unwrap_or_default();
        let lacking = confinement.iter().any(|measure| measure.as_str().unwrap_or("").starts_with("not"));
        assert_eq!(confinement.len(), 2, "{info:?}");
        if lacking {
            println!("SKIPPED: {confinement:?}");
            return;
        }
        client.run(REACH).await.ok();
        // Its parent is a zygote, if it is warm.
        for pid in [kernel.pid().to_string(), server.pid().to_string(), "os.getppid()".to_owned()] {
            assert_eq!(client.run(&format!("reach({pid})")).await.ok().result(), "'refused'");
        }
        let own = "import subprocess; p = subprocess.Popen(['sleep', '1000']); p.terminate(); p.wait()";
        assert_eq!(client.run(own).await.ok().result(), "-15");
        // And it is interrupted as ever.
        let cell = client.execute("print('on', flush=True)\nwhile True: pass").await;
        client.printed(&cell, "on\n").await;
        client.interrupt().await;
        client.finish(&cell).await.failed("KeyboardInterrupt");
    }
}
