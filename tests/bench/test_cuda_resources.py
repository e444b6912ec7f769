from bench.cuda_resources import GOLDEN, Kernel, compare, parse

LOG = """
ptxas info    : Compiling entry function '_ZN5splat3gpu44_GLOBAL__N__6f416d49_11_backward_cu_eedd3f3d13spread_kernelILb1EEEvNS0_5FrameE'
 for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 5120 bytes smem
ptxas info    : Compiling entry function '_ZN3cub17CUB_300001_SM_9006detail4scan20DeviceScanInitKernelEvT_i' for 'sm_90'
    8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers
ptxas info    : Compiling entry function '_ZN5splat3gpu38_GLOBAL__N__f7992365_6_bin_cu_90a439d011emit_kernelItEEvNS0_5FrameEPT_' for 'sm_75'
    16 bytes stack frame, 16 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 44 registers, used 0 barriers
"""
EMIT, SPREAD = Kernel("emit_kernel<uint16_t>", "sm_75", 44, 0, 28), Kernel("spread_kernel<1>", "sm_90", 64, 5120, 0)


def test_the_report_names_our_kernels_and_leaves_those_of_libraries_out() -> None:
    assert parse(LOG) == [EMIT, SPREAD]


def test_a_spill_is_wrong_whatever_the_compiler() -> None:
    assert compare([EMIT, SPREAD], [], same_compiler=False) == ["emit_kernel<uint16_t> spills 28 bytes on sm_75"]


def test_an_array_in_slow_memory_is_as_wrong_as_a_spill() -> None:
    indexed = LOG.replace("0 bytes stack frame, 0 bytes spill", "48 bytes stack frame, 0 bytes spill")
    assert compare(parse(indexed), [], same_compiler=False)[-1] == "spread_kernel<1> spills 48 bytes on sm_90"


def test_other_numbers_count_where_the_compiler_is_the_same() -> None:
    before = Kernel("spread_kernel<1>", "sm_90", 60, 5120, 0)
    assert compare([SPREAD], [SPREAD.line()], same_compiler=True) == []
    assert compare([SPREAD], [before.line()], same_compiler=True) == [f"was: {before.line()}", f"now: {SPREAD.line()}"]
    assert compare([SPREAD], [before.line()], same_compiler=False) == []


def test_no_kernel_in_the_committed_report_spills() -> None:
    lines = GOLDEN.read_text().splitlines()[2:]
    assert len(lines) > 50
    assert all(line.endswith(" 0") for line in lines)
