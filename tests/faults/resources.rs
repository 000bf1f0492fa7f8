//! R: code uses more than there is. The user sees an error of the cell, or of the worker; never the kernel's.

use cob_tests::kernel::TestKernel;
use cob_tests::process;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn r01_memory_that_cannot_be_had_is_an_error_of_the_cell() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    client.run("kept = 1").await.ok();
    client.run("bytearray(1 << 48)").await.failed("MemoryError");
    let bounded =
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 36, -1))\nbytearray(1 << 40)";
    client.run(bounded).await.failed("MemoryError");
    assert_eq!(client.run("kept").await.ok().result(), "1");
}

#[tokio::test]
async fn r03_of_200_mib_64_are_kept_and_the_rest_is_counted_to_the_byte() {
    let (kernel, mut client) = TestKernel::with_client().await;
    client.run("1").await.ok();
    let before = process::resident_bytes(kernel.pid());
    let code =
        "import os\nline = b'x' * 63 + b'\\n'\nfor _ in range(200):\n    os.write(1, line * (1 << 14))";
    let run = client.run(code).await.ok();
    let growth = process::resident_bytes_peak(kernel.pid()).saturating_sub(before);

    let (written, stdout) = (200 * MIB, run.stdout());
    let kept = stdout.len() as u64;
    assert!(kept <= 64 * MIB && kept > 63 * MIB, "{kept} bytes kept");
    let said = format!("{written} bytes written, {kept} kept, {} dropped", written - kept);
    assert!(run.stream("stderr").contains(&said), "`{said}` is not in `{}`", run.stream("stderr"));
    assert!(stdout.ends_with('\n') && stdout.starts_with("xxx"));
    assert!(growth < 128 * MIB, "the kernel grew by {growth} bytes");
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn r05_tiny_writes_are_gathered_and_none_is_lost() {
    const CODE: &str = "\
import sys
written = 0
try:
    while True:
        sys.stdout.write('x')
        sys.stdout.flush()
        written += 1
finally:
    print(file=sys.stderr)
    print(written, file=sys.stderr)";
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute(CODE).await;
    client.printed(&cell, &"x".repeat(10_000)).await;
    client.interrupt().await;
    let run = client.finish(&cell).await.failed("KeyboardInterrupt");
    let written: usize = run.stream("stderr").trim().parse().unwrap();
    let seen = run.stdout().len();
    // The interrupt may have come between a write and its count.
    assert!(seen == written || seen == written + 1, "{seen} of {written} came");
    let events = run.broadcasts.iter().filter(|seen| seen.msg_type == "stream").count();
    assert!(events < seen / 10, "{events} messages for {seen} bytes");
}

#[tokio::test]
async fn r07_endless_recursion_is_an_error_of_the_cell_or_of_the_worker() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    client.run("def f(): f()\nf()").await.failed("RecursionError");
    client.run("class C:\n    def __repr__(self): return repr(self)\nC()").await.ok();
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    // Without the guard of the interpreter the C stack ends, or the memory that the cell allows itself.
    let unguarded = "\
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))
sys.setrecursionlimit(10**9)
class C:
    def __repr__(self): return repr(self)
repr(C())";
    let run = client.run(unguarded).await;
    assert!(["RecursionError", "MemoryError", "WorkerLost"].contains(&run.ename()), "{}", run.reply);
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}
