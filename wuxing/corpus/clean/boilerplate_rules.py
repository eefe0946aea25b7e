"""Lines that belong to a page's frame, as whole-line patterns (RE2, any case) in English and Chinese.

A line must be nothing but the notice: a sentence that only mentions cookies or JavaScript stays.
"""

from __future__ import annotations

MAX_CHARACTERS = 240
"""Longer lines are text."""

_BETWEEN = r"[\s|·•・,/>»›&、，:：–-]+"
_LEGAL = (
    r"terms( (and|&) conditions)?( of (use|service))?|privacy( (policy|notice|statement|settings|centre|center))?|legal"
    r"( notice)?|disclaimer|imprint|accessibility( statement)?|site ?map|contact( us)?|about( us)?|careers|jobs|help"
    r"( center| centre)?|faq|feedback|press|advertise( with us)?|cookie (policy|settings|preferences|notice)|cookies"
    r"|dmca"
    r"|隐私(政策|条款|声明|权政策|保护)|隱私(政策|條款|聲明|權政策)|(使用|服务)(条款|协议)|(使用|服務)(條款|協議)|用户协议|用戶協議"
    r"|免责声明|免責聲明|法律声明|法律聲明|版权声明|版權聲明|网站地图|網站地圖|联系我们|聯繫我們|聯絡我們|关于我们|關於我們|友情链接"
    r"|友情鏈接|广告服务|廣告服務|人才招聘|加入我们|加入我們|意见反馈|意見反饋|帮助中心|幫助中心|常见问题|常見問題|站点地图"
)
_BUTTON = (
    r"share|tweet|like|follow( us)?|pin it|print|e-?mail|subscribe( now)?|sign (up|in|out)|log ?(in|out)|register|reply"
    r"|report|save|copy link|back to top|skip to (main )?(content|navigation)|next( (page|post|article))?|prev(ious)?"
    r"( (page|post|article))?|home( page)?|menu|search|close|advertisements?|sponsored|loading|comments?|newsletter"
    r"|news|facebook|twitter|linkedin|pinterest|whatsapp|instagram|youtube|reddit|rss"
    r"|分享到?|转发|轉發|收藏|点赞|點讚|打印|登录|登錄|登入|登出|注册|註冊|退出|首页|首頁|上一?[页頁篇章条]|下一?[页頁篇章条]|返回(顶部|頂部|首页|首頁|上一页|列表)"
    r"|菜单|選單|搜索|搜尋|关闭|關閉|广告|廣告|加载中|載入中|评论|評論|微信|微博|新浪微博|朋友圈|手机版|电脑版|设为首页|加入收藏"
)
_MORE = (
    r"(read|show|load|view|see|learn) (more|all|full (article|story))|continue reading|click here( (to|for) .{1,40})?"
    r"|(阅读|查看|閱讀|加载|显示|顯示)(更多|全文|原文|详情)|展开(全文|更多)?|展開(全文|更多)?|点击(这里|此处)?(查看|展开|进入|下载).{0,6}"
    r"|點擊(這裡|此處)?(查看|展開|進入).{0,6}|点击(这里|此处)"
)
_SITE = r"(we|this (web)?site|our (web)?site|this page|our partners|the (web)?site)"
_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"

RULES: dict[str, tuple[str, ...]] = {
    "cookie_notice": (
        r"(accept|allow|reject|decline|refuse|manage|customi[sz]e)( all| only| necessary| essential| optional| my)*"
        r" cookies",
        rf".*\b{_SITE}( may| also)? uses? ([\w-]+ ){{0,4}}cookies\b.*",
        r".*\bby (using|continuing|browsing|clicking|visiting)\b.*\bcookies\b.*",
        r"(全部)?(接受|同意|拒绝|拒絕|管理|允许|允許)(所有|全部|必要|的)*\s*cookies?.{0,4}",
        r".*(本网站|本站|我们|我們|本網站|网站|網站).{0,12}(使用|采用|採用)(了)?\s*cookies?.*",
    ),
    "javascript_notice": (
        r"(please |you (need|must|have) to |sorry,? .{0,40})?(enable|turn on|activate|allow) javascript\b.*",
        r".{0,60}\bjavascript (is|must be|needs to be|has been|seems to be)( currently)?( either)? (disabled|enabled"
        r"|turned o(n|ff)|required|not (available|enabled|supported))\b.{0,120}",
        r".{0,20}\b(this|the) (page|site|website|application|app|form) (requires|needs) javascript\b.{0,80}",
        r".{0,20}\byour browser (does not|doesn['’]t) support (javascript|html5|iframes|frames|the \w+ (tag|element))\b"
        r".{0,80}",
        r".{0,20}(启用|啟用|开启|開啟|打开|打開).{0,8}javascript.{0,60}",
        r".{0,20}(浏览器|瀏覽器)(不支持|不支援|未启用|禁用了?).{0,40}",
    ),
    "rights_notice": (
        r".{0,100}\ball rights reserved\b.{0,100}",
        r"(copyright|©|\(c\)|版权所有|版權所有)[\s©(c)]*[12][0-9]{3}.{0,120}",
        r"[^，。]{0,60}(版权所有|版權所有|保留所有权利|保留所有權利|保留一切权利|版权归.{1,20}所有)[^，。]{0,60}",
        rf".{{0,60}}[{_PROVINCE}]\s*ICP\s*[备備证證]\s*[0-9]+\s*[号號].{{0,60}}",
        r".{0,60}公[网網]安[备備]\s*[0-9]+\s*[号號].{0,60}",
    ),
    "links": (rf"({_LEGAL}|{_BUTTON})({_BETWEEN}({_LEGAL}|{_BUTTON}))+",),
    "navigation": (
        rf"({_MORE})",
        r"share (this|on|via|to|with) (this|your|facebook|twitter|linkedin|pinterest|whatsapp|email|x|reddit)\b.{0,30}",
        r"(follow|find|join|like) us on\b.{0,40}",
        r"(subscribe|sign up) (to|for) (our|the|this)\b.{0,60}",
        r"(page|第)\s*[0-9]+\s*(of|/|页|頁)[，,/\s]*(共|of)?\s*[0-9]*\s*(页|頁)?",
        r"(扫一扫|扫码|扫描(下方|上方)?二维码|掃描二維碼|关注(我们|公众号|微信)|關注我們|责任编辑[:：]|責任編輯[:：]).{0,30}",
    ),
}
BUTTON = "button"
"""One word of navigation alone on a line may as well be a heading: it goes only beside another line that goes."""
RULES[BUTTON] = (rf"({_LEGAL}|{_BUTTON})",)


def pattern(kind: str) -> str:
    """One RE2 pattern for a kind of line: the whole line, whatever its case, closing signs and bullets aside.

    Indented lines are code or lists, and never match.
    """
    alternatives = "|".join(f"(?:{rule})" for rule in RULES[kind])
    return rf"(?i)^ ?(?:[\[(【（|·•*>«‹←→»›-] *)*(?:{alternatives})[\s\])】）|·•*>«‹←→»›!！…]*[.。]{{0,3}}$"
