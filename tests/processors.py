"""What Linux says of processors in /proc/cpuinfo, and the part of it that goes into the names of records."""

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
cpu MHz\t\t: 2400.000
flags\t\t: fpu sse4_2 avx2 avx512_bf16 amx_bf16
vmx flags\t: vnmi
bogomips\t: 4800.00

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8488C
cpu MHz\t\t: 3100.000
flags\t\t: fpu sse4_2 avx2 avx512_bf16 amx_bf16
"""
X86_SAYS = "flags\t\t: fpu sse4_2 avx2 avx512_bf16 amx_bf16\nmodel name\t: Intel(R) Xeon(R) Platinum 8488C"

GRAVITON2 = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes crc32 atomics asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
GRAVITON2_SAYS = (
    "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU variant\t: 0x3\nFeatures\t: fp asimd evtstrm aes crc32 atomics "
    "asimddp ssbs"
)

GRAVITON3 = GRAVITON2.replace("0xd0c", "0xd40").replace("0x3", "0x1").replace("asimddp ssbs", "asimddp sve bf16")
GRAVITON3_SAYS = GRAVITON2_SAYS.replace("0xd0c", "0xd40").replace("0x3", "0x1").replace("ssbs", "sve bf16")

PROCESSORS = {
    "x86": (X86, X86_SAYS),
    "graviton2": (GRAVITON2, GRAVITON2_SAYS),
    "graviton3": (GRAVITON3, GRAVITON3_SAYS),
}
