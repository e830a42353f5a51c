import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lade_tf.data.image_decoding import bad_image_reason, decode_window, find_bad_images

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
    def choose(height, width):
        return tf.constant(window) if window else tf.stack([0, 0, height, width])

    return tf.function(lambda contents: decode_window(contents, choose, target))(contents).numpy()


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


def test_a_bmp_with_a_palette_is_refused():
    for mode in ("P", "L", "1"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="a BMP with a palette"):
            decode(encode(photograph(mode=mode), "BMP"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="BMP"):
        decode(b"BM")


def test_the_reason_of_a_refused_bmp_is_words(tmp_path):
    path = tmp_path / "palette.bmp"
    path.write_bytes(encode(photograph(mode="P"), "BMP"))
    assert bad_image_reason(str(path)) == "a BMP with a palette"
