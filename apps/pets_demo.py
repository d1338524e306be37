"""A ten-line Gradio demo of a model that you trained, like that of the fast.ai course; made to be copied and changed.

    kit fine-tune pets --label is_cat --out runs/pets
    python apps/pets_demo.py --folder runs/pets  # then open http://127.0.0.1:7860

Differences from the demo of the lesson: the bundle is data, and no code in it is run; photos are rotated by their EXIF
orientation and cropped as in validation; a file that is not an image gives an error message; uploads are deleted within
two hours. `kit serve runs/pets` is the same with heat maps, a login and an API.
"""

import gradio as gr

from kit import bundle
from kit.cli.script import script
from kit.manifest import EXAMPLES, photos
from kit.serve.webpage import LOOKS, SAFE


def main(folder: str = "runs/pets", port: int = 7860):
    predictor = bundle.load(folder)

    def classify(path: str | None):
        if path is None:
            return None
        prediction = predictor.predict(path)[0]
        if prediction.error:
            raise gr.Error(prediction.error, print_exception=False)
        return prediction.probabilities

    photo = gr.Image(label="Photo", height=340, buttons=[], elem_classes="photo")
    photo.preprocess = lambda file: file and file.path  # kit alone opens the file
    examples = [str(predictor.folder / name) for name in photos(predictor.config, EXAMPLES)]
    answer = gr.Label(num_top_classes=3, label="Prediction")
    demo = gr.Interface(
        classify, photo, answer, examples=examples or None, title=" or ".join(predictor.vocab[:3]), api_name="predict",
        flagging_mode="never", analytics_enabled=False, delete_cache=(3600, 3600), cache_examples=False,
    )  # fmt: skip
    demo.queue(max_size=10).launch(server_port=port, share=False, max_file_size="10mb", theme=LOOKS["theme"], **SAFE)


if __name__ == "__main__":
    script(main)
