import functools
import io
import os
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lade_tf.data.files import image_decoding
from lade_tf.data.files.image_decoding import bad_image_reason, decode_window, find_bad_images

WINDOW = (5, 7, 20, 30)


def photograph(height=48, width=64, mode="RGB"):
    """Smooth colours: JPEG keeps them nearly as they are."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def animated_gif():
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def animated_webp():
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green")]
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])


GOOD = {
    "jpeg": lambda: encode(photograph(), "JPEG", quality=95),
    "progressive jpeg": lambda: encode(photograph(), "JPEG", quality=95, progressive=True),
    "grey jpeg": lambda: encode(photograph(mode="L"), "JPEG", quality=95),
    "cmyk jpeg": lambda: encode(photograph(mode="CMYK"), "JPEG", quality=95),
    "png": lambda: encode(photograph(), "PNG"),
    "grey png": lambda: encode(photograph(mode="L"), "PNG"),
    "png with alpha": lambda: encode(photograph(mode="RGBA"), "PNG"),
    "grey png with alpha": lambda: encode(photograph(mode="LA"), "PNG"),
    "palette png": lambda: encode(photograph(mode="P"), "PNG"),
    "black and white png": lambda: encode(photograph(mode="1"), "PNG"),
    "gif": lambda: encode(photograph(mode="P"), "GIF"),
    "animated gif": animated_gif,
    "bmp": lambda: encode(photograph(), "BMP"),
    "webp": lambda: encode(photograph(), "WEBP", lossless=True),
}


def decode(contents, window=None, target=8):
    return decoder(window, target)(contents).numpy()


@functools.cache
def decoder(window, target):
    def choose(height, width):
        return tf.constant(window) if window else tf.stack([0, 0, height, width])

    return tf.function(lambda contents: decode_window(contents, choose, target))


@pytest.mark.parametrize("name", GOOD)
def test_formats_match_pillow(name):
    contents = GOOD[name]()
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"), int)
    whole = decode(contents, target=24)
    assert whole.dtype == np.uint8
    # JPEG decoders may round differently.
    np.testing.assert_allclose(whole, expected, atol=5 if "jpeg" in name else 0)
    top, left, height, width = WINDOW
    part = decode(contents, WINDOW, target=24)
    np.testing.assert_allclose(
        part, whole[top : top + height, left : left + width], atol=5 if "jpeg" in name else 0
    )


def test_the_upper_8_of_16_bits_stay():
    levels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    contents = encode(Image.fromarray(levels), "PNG")
    decoded = decode(contents)
    np.testing.assert_array_equal(decoded, np.repeat(levels[..., None] >> 8, 3, axis=2))


def test_one_pixel():
    for file_format in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        assert decode(encode(Image.new("RGB", (1, 1), "red"), file_format)).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("shorter", "ratio"), [(31, 1), (32, 2), (63, 2), (64, 4), (127, 4), (128, 8), (500, 8)]
)
def test_large_jpegs_are_reduced(shorter, ratio):
    """To no less than twice the size of the result, here 8 pixels."""
    contents = encode(photograph(shorter, shorter + 40), "JPEG", quality=95)
    decoded = decode(contents, target=8)
    assert decoded.shape == (shorter // ratio, (shorter + 40) // ratio, 3)
    expected = Image.open(io.BytesIO(contents)).reduce(ratio)
    expected = np.asarray(expected, int)[: shorter // ratio, : (shorter + 40) // ratio]
    assert np.abs(decoded - expected).mean() < 2


def test_the_window_of_a_reduced_jpeg_is_where_it_was():
    contents = encode(photograph(400, 600), "JPEG", quality=95)
    window = (40, 300, 64, 128)
    expected = decode(contents, target=1000)[40:104, 300:428]
    expected = np.asarray(Image.fromarray(expected).reduce(4), int)
    part = decode(contents, window, target=8)
    assert part.shape == (16, 32, 3)
    assert np.abs(part - expected).mean() < 2


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_10_000_by_10_000(file_format):
    contents = encode(Image.new("RGB", (10_000, 10_000), (10, 200, 30)), file_format)
    decoded = decode(contents, target=256)
    assert decoded.shape == ((1250, 1250, 3) if file_format == "JPEG" else (10_000, 10_000, 3))
    np.testing.assert_allclose(decoded[::97, ::89].mean((0, 1)), (10, 200, 30), atol=2)


BAD = {
    "truncated.jpg": lambda: GOOD["jpeg"]()[:700],
    "truncated_progressive.jpg": lambda: GOOD["progressive jpeg"]()[:700],
    "truncated.png": lambda: GOOD["png"]()[:1000],
    "truncated.gif": lambda: GOOD["gif"]()[:1500],
    "truncated.bmp": lambda: GOOD["bmp"]()[:3000],
    "truncated.webp": lambda: GOOD["webp"]()[:300],
    "header.jpg": lambda: GOOD["jpeg"]()[:20],
    "nothing.png": lambda: b"",
    "text.jpg": lambda: b"This is no image.",
    "missing.jpg": None,
}


def test_find_bad_images(tmp_path):
    expected = []
    paths = []
    for (good, contents), (bad, broken) in zip(GOOD.items(), BAD.items(), strict=False):
        # The ending of a good file is always wrong.
        (tmp_path / f"{good}.txt").write_bytes(contents())
        if broken:
            (tmp_path / bad).write_bytes(broken())
        paths += [str(tmp_path / f"{good}.txt"), str(tmp_path / bad)]
        expected.append(str(tmp_path / bad))
    found = find_bad_images(paths)
    assert [path for path, _ in found] == expected
    assert len(expected) == len(BAD)
    for _, reason in found:
        assert reason and "{{" not in reason and "Op:" not in reason
    reasons = {os.path.basename(path): reason for path, reason in found}
    assert "JPEG" in reasons["truncated.jpg"] and "PNG" in reasons["truncated.png"]
    assert reasons["missing.jpg"] == "no such file"
    assert "format" in reasons["text.jpg"] and "empty" in reasons["nothing.png"]


def test_nothing_to_look_at():
    assert find_bad_images([]) == []


def test_undecodable_file_names_pass(tmp_path):
    path = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9.jpg"))
    with open(path, "wb") as file:
        file.write(b"no image")
    assert [found for found, _ in find_bad_images([path])] == [path]


def test_a_good_file_has_another_reason(tmp_path):
    path = tmp_path / "good.jpg"
    path.write_bytes(GOOD["jpeg"]())
    assert bad_image_reason(str(path)) == "could not be decoded, but can be now"
    # Where it isn't known what max_pixel a stream had that couldn't read it.
    path = tmp_path / "deep.png"
    path.write_bytes(tf.io.encode_png(np.full([2, 2, 1], 5000, np.uint16)).numpy())
    assert bad_image_reason(str(path)) == "an image of 16 bits with values above max_pixel"


def bmp(bits, masks=None, header=40, from_top=False, palette=None, compression=None, cut=0):
    """Makes a BMP of 13 × 7 random pixels with any header."""
    rng = np.random.default_rng(bits)
    data = rng.integers(0, 256, (13 * bits + 31) // 32 * 4 * 7, np.uint8).tobytes()
    compression = (3 if masks else 0) if compression is None else compression
    colors = () if palette is None else palette
    if header == 12:
        head = struct.pack("<IHHHH", 12, 13, 7, 1, bits)
    else:
        height = -7 if from_top else 7
        sizes = (header, 13, height, 1, bits, compression, len(data), 0, 0, len(colors), 0)
        head = struct.pack("<IiiHHIIiiII", *sizes)
        given = struct.pack("<IIII", *masks) if masks else bytes(16)
        head += given[:12] if header == 40 and masks else (given + bytes(100))[: header - 40]
    head += b"".join(bytes(color) + b"\0" * (header > 12) for color in colors)
    start = struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head))
    return (b"BM" + start + head + data)[: -cut or None]


PALETTES = {
    bits: np.random.default_rng(0).integers(0, 256, (2**bits, 3), np.uint8) for bits in (1, 4, 8)
}
MASKS = {  # the layouts that Pillow knows
    16: [(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)],
    24: [(0xFF0000, 0xFF00, 0xFF, 0)],
    32: [
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        (0, 0, 0, 0),
    ],
}
decode_whole = tf.function(
    image_decoding.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def assert_as_pillow(contents):
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    np.testing.assert_array_equal(decode_whole(contents), expected)


def test_bmps_of_every_depth_header_and_mask_match_pillow():
    for bits, palette in PALETTES.items():
        for header in (12, 40, 52, 56, 64, 108, 124):
            assert_as_pillow(bmp(bits, header=header, palette=palette))
        assert_as_pillow(bmp(bits, from_top=True, palette=palette))
    for bits, layouts in MASKS.items():
        for header in (12, 40, 108):
            assert_as_pillow(bmp(bits, header=header, from_top=header > 12))
        for masks in layouts:
            for header in (40, 56, 124):
                if header > 40 or masks[3] != 0xFF000000 or masks[0] > 0xFF:  # else unknown to it
                    assert_as_pillow(bmp(bits, masks, header))
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        assert_as_pillow(encode(photograph(mode=mode), "BMP"))
    # The padding of the last row may be missing.
    assert_as_pillow(bmp(24, cut=1))


def test_masks_that_pillow_does_not_know():
    """4 bits a channel, 16 times themselves and more; channels in an order of one's own."""
    pixels = decode_whole(bmp(16, (0xF00, 0xF0, 0xF, 0))).numpy()
    assert set(np.unique(pixels)) == set(range(0, 256, 17))
    swapped = decode_whole(bmp(32, (0xFF00, 0xFF, 0xFF0000, 0), 56)).numpy()
    usual = decode_whole(bmp(32, (0xFF0000, 0xFF00, 0xFF, 0), 56)).numpy()
    np.testing.assert_array_equal(swapped, usual[..., [1, 2, 0]])


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (bmp(8, compression=1, palette=PALETTES[8]), "a compressed BMP (RLE)"),
        (bmp(24, compression=4), "a compressed BMP (RLE)"),
        (bmp(2), "a BMP with an unknown number of bits"),
        (bmp(24, header=41), "a BMP with an unknown header"),
        (bmp(24, cut=4), "a BMP that is cut short"),
        (b"BM", "a BMP with an unknown header"),
        (
            bmp(32, (0x3FF00000, 0xFFC00, 0x3FF, 0), 56),
            "a BMP with channel masks that are not whole",
        ),
        (bmp(16, (0xF0F, 0xF0, 0xF, 0)), "a BMP with channel masks that are not consecutive"),
        (animated_webp(), "an animated WebP"),
    ],
)
def test_what_is_refused_is_named(tmp_path, contents, reason):
    path = tmp_path / "image"
    path.write_bytes(contents)
    assert bad_image_reason(str(path)).startswith(reason)
    assert [found for found, _ in find_bad_images([str(path)])] == [str(path)]


def test_webp_with_alpha_matches_pillow():
    for alpha in (None, 0, 255):
        pixels = np.array(photograph(47, 61, "RGBA"))
        pixels[..., 3] = np.arange(61) * 4 if alpha is None else alpha
        for options in ({"lossless": True}, {"quality": 80}, {"quality": 80, "exact": True}):
            assert_as_pillow(encode(Image.fromarray(pixels), "WEBP", **options))


def test_transparent_gifs_match_pillow():
    image = photograph(mode="P")
    for index in (0, 7, 200):
        assert_as_pillow(encode(image, "GIF", transparency=index, comment=b"x" * 600))
    frames = {"save_all": True, "append_images": [Image.new("P", (64, 48), 3)], "loop": 0}
    assert_as_pillow(encode(image, "GIF", transparency=7, **frames))


@pytest.mark.parametrize(
    ("bits", "channels"),
    [
        (12, 1),
        (14, 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((10, 2), (12, 4))),
    ],
)
def test_images_of_fewer_bits_in_16(tmp_path, bits, channels):
    white = 2**bits - 1
    pixels = np.linspace(0, white, 32 * 32 * channels).reshape(32, 32, channels)
    pixels = pixels.astype(np.uint16)
    if channels % 2 == 0:
        pixels[..., -1] = white  # alpha
    contents = tf.io.encode_png(pixels).numpy()
    colors = pixels[..., : 3 if channels > 2 else 1]
    # Of colours Pillow takes the upper 8 bits, and so does this of all without more.
    if channels > 2:
        assert_as_pillow(contents)
    np.testing.assert_array_equal(decode_whole(contents), np.broadcast_to(colors >> 8, (32, 32, 3)))
    decoded = image_decoding.decode(contents, white).numpy()
    expected = np.broadcast_to(np.floor(colors * 255.0 / white + 0.5), (32, 32, 3))
    np.testing.assert_array_equal(decoded, expected)
    path = tmp_path / "deep.png"
    path.write_bytes(contents)
    highest = int(colors.max())
    assert image_decoding.highest_of_16_bits([str(path), str(tmp_path)]) == {str(path): highest}
    below = 1000
    [(_, reason)] = find_bad_images([str(path)], below)
    assert reason == "an image of 16 bits with values above max_pixel=1000"
    assert find_bad_images([str(path)], white) == []


def test_max_pixel_is_for_16_bits_alone():
    for name in ("png", "grey png", "gif", "bmp", "webp", "jpeg"):
        contents = GOOD[name]()
        np.testing.assert_array_equal(
            image_decoding.decode(contents, 100), image_decoding.decode(contents)
        )


def test_channels_that_a_network_takes():
    contents = GOOD["png with alpha"]()
    image = Image.open(io.BytesIO(contents))
    for channels, mode in {1: "L", 3: "RGB", 4: "RGBA"}.items():
        expected = np.asarray(
            image.convert("RGB").convert("L") if mode == "L" else image.convert(mode)
        )
        decoded = image_decoding.decode_channels(contents, channels)
        np.testing.assert_array_equal(decoded, expected.reshape(48, 64, channels))
