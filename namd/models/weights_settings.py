"""Which pretrained weights the project can use, as a table; finding them is in `weights`."""

from dataclasses import dataclass
from typing import Literal

from namd.models.language_settings import EMBEDDED

WeightFormat = Literal["diffusers", "transformers", "checkpoint"]

LOCAL_ROOT = "weights"


@dataclass(frozen=True)
class ExternalWeight:
    """One set of weights that others trained.

    Attributes:
        name: The word used on the command line and in `locate`.
        title: What a person calls it.
        purpose: What a run does with it.
        format: `diffusers` and `transformers` are folders of config.json and safetensors;
            `checkpoint` is one file of torch hub's cache, of which the name carries the digest.
        licence: Licence of the weights, not of the code around them.
        gated: Whether its terms must be accepted before it can be downloaded.
        fallback: What a run does without it; empty: it stops and says so.
        repository: Hugging Face name `owner/name` of a folder format.
        subfolder: Where the model lies inside the repository.
        classes: `_class_name` or `model_type` values that its config.json may state; empty: any.
        companions: Files that must lie beside it; of a group split by `|`, one.
        companion_files: What else to download for them, as patterns inside the repository.
        folder: Name of its folder under `weights/` or `$NAMD_WEIGHTS`, where presets expect it.
        config_path: Dotted path of the configuration value that may name another folder.
        config_word: What that value says where the weights are not wanted, besides null.
        revision_path: Dotted path of the value that may name a commit of a hub name.
        open: Whether a place that the configuration names may hold another model of this format.
        filename: Name of a checkpoint in torch hub's cache.
        fetch_code: Python statement that makes its library download a checkpoint.
    """

    name: str
    title: str
    purpose: str
    format: WeightFormat
    licence: str
    gated: bool = False
    fallback: str = ""
    repository: str = ""
    subfolder: str = ""
    classes: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    companion_files: tuple[str, ...] = ()
    folder: str = ""
    config_path: str = ""
    config_word: str = ""
    revision_path: str = ""
    open: bool = False
    filename: str = ""
    fetch_code: str = ""

    def __post_init__(self) -> None:
        """Reject an entry that could be neither looked for nor fetched."""
        if self.format == "checkpoint" and not (self.filename and self.fetch_code):
            raise ValueError(f"{self.name}: a checkpoint needs filename and fetch_code")
        if self.format != "checkpoint" and not (self.repository and self.folder):
            raise ValueError(f"{self.name}: a model folder needs repository and folder")

    @property
    def filenames(self) -> tuple[str, ...]:
        """A checkpoint's file as published, and the same tensors saved as safetensors."""
        return (self.filename, f"{self.filename.rpartition('.')[0]}.safetensors")

    @property
    def digest_start(self) -> str:
        """The first digits (hex) of a checkpoint's SHA-256, published in its name."""
        return self.filename.rpartition(".")[0].rpartition("-")[2]

    @property
    def fetch_command(self) -> str:
        """The shell command that fetches it on a machine with a network."""
        if self.format == "checkpoint":
            return f'python -c "{self.fetch_code}"'
        inside = f"{self.subfolder}/" if self.subfolder else ""
        stem = "diffusion_pytorch_model" if self.format == "diffusers" else "model"
        patterns = (f"{inside}*.json", f"{inside}{stem}*.safetensors", *self.companion_files)
        # SD1.5's folders also hold half-precision and non-EMA copies, and pickles.
        excluded = " --exclude '*fp16*' --exclude '*non_ema*'"
        includes = "".join(f" --include '{pattern}'" for pattern in patterns)
        login = "hf auth login && " if self.gated else ""
        place = f" --local-dir {self.preset_folder}"
        return f"{login}hf download {self.repository}{includes}{excluded}{place}"

    @property
    def preset_folder(self) -> str:
        """The folder that presets name, relative to where the program is started."""
        return f"{LOCAL_ROOT}/{self.folder}"


_SD15_FOLDER = "stable-diffusion-v1-5"
_SD15 = f"{_SD15_FOLDER}/{_SD15_FOLDER}"

WEIGHTS: dict[str, ExternalWeight] = {
    weight.name: weight
    for weight in (
        ExternalWeight(
            name="sd15-vae",
            title="Stable Diffusion 1.5 VAE",
            purpose="start of stage vae",
            format="diffusers",
            licence="CreativeML OpenRAIL-M",
            fallback="set vae.architecture.weights to null: the VAE starts from random weights",
            repository=_SD15,
            folder=_SD15_FOLDER,
            subfolder="vae",
            classes=("AutoencoderKL",),
            config_path="vae.architecture.weights",
        ),
        ExternalWeight(
            name="sd15-unet",
            title="Stable Diffusion 1.5 U-Net",
            purpose="start of NAMD's stage pretrain, and of the U-Net in the row SD1.5",
            format="diffusers",
            licence="CreativeML OpenRAIL-M",
            fallback="set unet.weights to null: the U-Net starts from random weights",
            repository=_SD15,
            folder=_SD15_FOLDER,
            subfolder="unet",
            classes=("UNet2DConditionModel",),
            config_path="unet.weights",
        ),
        ExternalWeight(
            name="clip-text",
            title="CLIP ViT-L/14 text encoder, as Stable Diffusion 1.5 carries it",
            purpose="its empty prompt is the context of pretraining (paper-authors-code)",
            format="transformers",
            licence="MIT",
            fallback="set pretrain.clip_weights to null: a learned token is that context",
            repository=_SD15,
            folder=_SD15_FOLDER,
            subfolder="text_encoder",
            classes=("clip_text_model",),
            companions=("tokenizer.json|vocab.json|../tokenizer/vocab.json",),
            companion_files=("tokenizer/*",),
            config_path="pretrain.clip_weights",
        ),
        ExternalWeight(
            name="sd15-clip",
            title="Stable Diffusion 1.5 text encoder (CLIP ViT-L/14)",
            purpose="reads the report in the row SD1.5",
            format="transformers",
            licence="MIT",
            fallback="set text.source to embedded: a small CLIP text model with random weights",
            repository=_SD15,
            folder=_SD15_FOLDER,
            subfolder="text_encoder",
            classes=("clip_text_model",),
            companions=("tokenizer.json|vocab.json|../tokenizer/vocab.json",),
            companion_files=("tokenizer/*",),
            config_path="text.source",
            config_word=EMBEDDED,
        ),
        ExternalWeight(
            name="medgemma",
            title="MedGemma 1.5 4B, instruction-tuned",
            purpose="reads the report in NAMD",
            format="transformers",
            licence="Health AI Developer Foundations terms of use",
            gated=True,
            fallback="set language.source to embedded: the small Gemma 3 that the project trains",
            repository="google/medgemma-1.5-4b-it",
            folder="medgemma-1.5-4b-it",
            classes=("gemma3", "gemma3_text"),
            companions=("tokenizer.json|tokenizer.model",),
            companion_files=("tokenizer.*",),
            config_path="language.source",
            config_word=EMBEDDED,
            revision_path="language.revision",
            open=True,
        ),
        ExternalWeight(
            name="flux",
            title="FLUX.1 [dev] transformer",
            purpose="optional start of the row Flux; reads latents of FLUX's own autoencoder",
            format="diffusers",
            licence="FLUX.1 [dev] non-commercial licence",
            gated=True,
            fallback="set flux.architecture.weights to null: it starts from random weights",
            repository="black-forest-labs/FLUX.1-dev",
            folder="FLUX.1-dev",
            subfolder="transformer",
            classes=("FluxTransformer2DModel",),
            config_path="flux.architecture.weights",
        ),
        ExternalWeight(
            name="lpips-vgg",
            title="VGG16 trunk of LPIPS",
            purpose="perceptual term of stage vae",
            format="checkpoint",
            licence="CC BY 4.0 (Oxford VGG), ImageNet terms",
            fallback=(
                "perceptual.source embedded: an encoder of the project's own, trained without "
                "labels to tell rotations"
            ),
            config_path="trunks.lpips_vgg",
            filename="vgg16-397923af.pth",
            fetch_code="import torchvision.models as m; m.vgg16(weights='IMAGENET1K_V1')",
        ),
        ExternalWeight(
            name="lpips-alex",
            title="AlexNet trunk of LPIPS",
            purpose="column lpips of the tables",
            format="checkpoint",
            licence="BSD-3-Clause (torchvision), ImageNet terms",
            fallback="the column lpips stays empty; SSIM and PSNR are always there",
            config_path="trunks.lpips_alex",
            filename="alexnet-owt-7be5be79.pth",
            fetch_code="import torchvision.models as m; m.alexnet(weights='IMAGENET1K_V1')",
        ),
        ExternalWeight(
            name="inception",
            title="Inception v3 of the original FID",
            purpose="column fid of the tables",
            format="checkpoint",
            licence="Apache-2.0",
            fallback="the column fid stays empty; fid_judge and kid_judge are always there",
            config_path="trunks.inception",
            filename="weights-inception-2015-12-05-6726825d.pth",
            fetch_code=(
                "from torch_fidelity.feature_extractor_inceptionv3 import "
                "FeatureExtractorInceptionV3 as F; F('inception-v3-compat', ['2048'])"
            ),
        ),
    )
}
