"""Loops are found in nvcc's machine code as they are written there."""

from bench.cuda_sass import Instruction, kernels_in, parts_of

SYMBOL = "_ZN5splat3gpu61_GLOBAL__N__0c8e8b21_10_forward_cu_5ce4a7c212blend_kernelENS0_5FrameE"
TEXT = f"""
\t\tFunction : {SYMBOL}
        /*0000*/                   LDC R1, c[0x0][0x28] ;    /* 0x0 */
        /*0010*/                   S2R R0, SR_TID.X ;
        /*0020*/                   LDS.128 R4, [R2] ;
        /*0030*/                   FFMA R3, R4, R4, R3 ;
        /*0040*/                   SHFL.UP PT, R5, R5, 0x1, RZ ;
        /*0050*/               @P0 BRA 0x30 ;
        /*0060*/              @!P1 BRA 0x20 ;
        /*0070*/               @P2 EXIT ;
        /*0080*/                   STG.E [R2.64], R3 ;
        /*0090*/                   EXIT ;
        /*00a0*/                   MUFU.RCP R3, R3 ;
        /*00b0*/                   BRA 0x70 ;
        /*00c0*/                   NOP ;
\t\tFunction : _ZN3cub6kernelEv
        /*0000*/                   EXIT ;
"""


def test_kernels_of_ours_are_found_by_name_and_a_librarys_are_left_out() -> None:
    found = kernels_in(TEXT)
    assert list(found) == ["blend_kernel"]
    assert len(found["blend_kernel"]) == 12


def test_a_loop_within_a_loop_is_taken_out_of_it_and_slow_paths_are_left_out() -> None:
    parts = parts_of(kernels_in(TEXT)["blend_kernel"])
    assert [(part.begin, part.instructions, part.words) for part in parts] == [(0, 5, 0), (0x20, 2, 4), (0x30, 3, 1)]


def test_words_are_counted_by_the_width_of_an_access() -> None:
    widths = {
        "LDS R1, [R2]": 1,
        "STS.64 [R2], R4": 2,
        "@!P0 LDS.128 R4, [R2+0x10]": 4,
        "STS.U16 [R2], R3": 1,
        "FADD R1, R2, R3": 0,
        "LDG.E.128 R4, [R2]": 0,
    }
    assert {text: Instruction(0, text).words for text in widths} == widths
